curl --location --request POST 'https://www.sophnet.com/api/open-apis/v1/chat/completions-with-voice-output' \
--header 'Content-Type: application/json' \
--header 'Authorization: Bearer $API_KEY' \
--data-raw '{
"chat_completion_req": {
"messages": [
{
"role": "user",
"content": "你好"
}
],
"model":"Qwen2.5-32B-Instruct",
"stream": true
},
"speech_synthesis_req": {
"easyllm_id": "${easyllm_id}"
}
}'
