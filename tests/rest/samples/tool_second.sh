curl --location -g --request POST 'https://www.sophnet.com/api/open-apis/v1/chat/completions' \
--header "Authorization: Bearer $API_KEY" \
--header "Content-Type: application/json" \
--data-raw '{
"messages": [
{
"role": "user",
"content": "今日上海天气如何?"
},
{
"content": "",
"role": "assistant",
"tool_calls": [
{
"id": "call_f0j0i4meawn7kqx335d4fsj1",
"type": "function",
"function":
{
"name": "get_weather",
"arguments": "{\"latitude\":31.2304,\"longitude\":121.4737}"
}
}
]
},
{
"role": "tool",
"tool_call_id": "call_f0j0i4meawn7kqx335d4fsj1",
"content": "20"
}
],
"model":"DeepSeek-v3",
"tools": [
{
"type": "function",
"function":
{
"name": "get_weather",
"description": "Get current temperature for provided coordinates in celsius.",
"parameters":
{
"type": "object",
"properties":
{
"latitude": {"type": "number"},
"longitude": {"type": "number"}
},
"required": ["latitude", "longitude"],
"additionalProperties": false
},
"strict": true
}
}
]
}'
