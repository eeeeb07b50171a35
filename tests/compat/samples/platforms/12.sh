curl -X POST 'http://localhost/{platform}/v1/videos' \
--header 'Authorization: Bearer <你的许可证>' \
--header 'Content-Type: multipart/form-data' \
--form 'input_reference[]=@"/path/to/example1.jpg"' \
--form 'input_reference[]=@"/path/to/example2.jpg"' \
--form 'prompt="<视频描述>"' \
--form 'model="<平台模型>"'
