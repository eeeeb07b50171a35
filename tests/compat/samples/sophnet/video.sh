#!/bin/bash
# 请配置变量ProjectId和EasyllmId以及API_KEY
# Step 1: 提交任务
response=$(curl -s -X POST 'https://www.sophnet.com/api/open-apis/projects/{ProjectId}/easyllms/videogenerator/task' \
-H "Content-Type: application/json" \
-H "Authorization: Bearer ${API_KEY}" \
-d '{
"easyllm_id": "${EasyllmId}",
"model": "Wan2.1-T2V-14B",
"content": [
{
"type": "text",
"text": "小羊在草原上散步"
}
],
"parameters": {
"ratio": "16:9",
"duration": 5,
"fps": 16
}
}')
echo
echo $response
echo
taskId=$response
if [ -z "$taskId" ]; then
echo "任务提交失败,未获取到任务 ID"
exit 1
fi
echo "任务已提交,ID: $taskId"
# Step 2: 轮询状态
status="queued"
while [[ "$status" == "queued" || "$status" == "running" ]]; do
sleep 2
poll_response=$(curl -s -X GET "https://www.sophnet.com/api/open-apis/projects/${ProjectId}/easyllms/videogenerator/task/${taskId}" \
-H "Content-Type: application/json" \
-H "Authorization: Bearer ${API_KEY}")
status=$(echo "$poll_response" | grep -oP '(?<="status":")[^"]+')
echo "当前状态: $status"
done
echo
echo $poll_response
echo
# Step 3: 下载视频
if [ "$status" == "succeeded" ]; then
video_url=$(echo "$poll_response" | grep -oP '(?<="video_url":")[^"]+')
if [ -n "$video_url" ]; then
echo "下载视频: $video_url"
curl -s "$video_url" -o "${taskId}.mp4"
echo "视频已保存为 ${taskId}.mp4"
else
echo "任务成功但未获取到视频链接"
fi
else
echo "任务失败,状态: $status"
echo "完整响应: $poll_response"
fi
