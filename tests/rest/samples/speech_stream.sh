curl --location --request POST 'https://www.sophnet.com/api/open-apis/projects/{projectId}/easyllms/voice/synthesize-audio-stream' \
--header "Authorization: Bearer $API_KEY" \
--header "Content-Type: application/json" \
--data-raw '{
"easyllm_id": "YOUR_SERVICE_ID",
"text": ["这是要合成的文本", "第二段文本"],
"synthesis_param": {
"model": "cosyvoice-v1",
"voice": "longxiaochun",
"format": "WAV_16000HZ_MONO_16BIT",
"volume": 80,
"speechRate": 1.2,
"pitchRate": 1.0
}
}'
