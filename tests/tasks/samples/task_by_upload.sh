curl --location --request POST 'https://www.sophnet.com/api/open-apis/projects/{projectId}/easyllms/speechtotext/transcriptions' \
--header "Authorization: Bearer $API_KEY" \
--header "Content-Type: multipart/form-data" \
-F 'data={"easyllm_id":"YOUR_SERVICE_ID"};type=application/json' \
-F "audio_file=@/path/to/your_audio_file.wav;type=audio/wav"
