curl --location --request POST 'https://www.sophnet.com/api/open-apis/projects/{projectId}/easyllms/speechtotext/transcriptions' \
--header "Authorization: Bearer $API_KEY" \
--header "Content-Type: application/json" \
--data-raw '{
"audio_url":"YOUR_AUDIO_URL",
"easyllm_id":"YOUR_SERVICE_ID"
}'
