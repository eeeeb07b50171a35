curl --location --request POST 'https://www.sophnet.com/api/open-apis/projects/{projectId}/easyllms/image-ocr' \
--header "Authorization: Bearer $API_KEY" \
--header "Content-Type: application/json" \
--data-raw '{
"easyllm_id": "YOUR_SERVICE_ID",
"model": "DeepSeek-OCR",
"type":"image_url",
"image_url": {
"url": "data:image/jpeg;base64,/9j/..."
},
"prettify_markdown": true,
"show_formula_number": false
}'
