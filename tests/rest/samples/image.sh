curl --location -g --request POST 'https://www.sophnet.com/api/open-apis/projects/v1/chat/completions' \
--header "Authorization: Bearer $API_KEY" \
--header "Content-Type: application/json" \
--data-raw '{
"messages": [{
"role": "user",
"content": [
{
"type": "text",
"text": "describe the image in 100 words or less"
},
{
"type": "image_url",
"image_url": {
"url": "xxx"
}
}
]
}],
"model":"Qwen2.5-VL-72B-Instruct",
"stream":false
}'
