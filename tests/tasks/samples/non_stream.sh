curl --location --request POST 'https://www.sophnet.com/api/open-apis/projects/{projectId}/easyllms/speechtotext/non-stream' \
--header "Authorization: Bearer $API_KEY" \
--header "Content-Type: application/json" \
--data-raw '{
"easyllm_id": "{YOUR_EASYLLM_ID}",
"audio_url": "{YOUR_AUDIO_URL}"
}'
