curl -X POST 'http://localhost/{platform}/v1/chat/completions' \
--header 'Content-Type: application/json' \
--header 'Authorization: Bearer <你的许可证>' \
--data-raw '{
"messages": [
{
"role": "user",
"content": [
{
"type": "text",
"text": "<对话内容>"
},
{
"type": "file",
"file": {
"file_data": "文件的URL或者base64"
}
}
]
}
],
"model": "<平台模型>"
}'
