curl -X POST 'http://localhost/{platform}/v1/videos/{task_id}/remix' \
--header 'Authorization: Bearer <你的许可证>' \
--header 'Content-Type: multipart/form-data' \
--form 'input_reference[]=@"/path/to/example1.jpg"' \
--form 'input_reference[]=@"/path/to/example2.jpg"' \
--form 'prompt="<视频编辑提示词>"' \
--form 'model="<平台模型>"'
