curl -X POST 'http://localhost/{platform}/v1/videos/{task_id}/remix' \
--header 'Content-Type: application/json' \
--header 'Authorization: Bearer <你的许可证>' \
--data-raw '{
"prompt": "<视频编辑提示词>",
"model": "<平台模型>"
"input_reference": "<输入参考的URL或者base64>"
}'
