#!/bin/bash
# 请配置变量ProjectId和EasyllmId以及API_KEY
# Step 1: 发起异步请求
response=$(curl --silent --request POST 'https://www.sophnet.com/api/open-apis/projects/${ProjectId}/easyllms/texttoimage/task' \
--header "Authorization: Bearer ${API_KEY}" \
--header 'Content-Type: application/json' \
--data '{
"easyllm_id": "${EasyllmId}",
"model": "qwen-image",
"input": {
"prompt": "奔跑的小猫"
},
"parameters": {
"size": "1024*1024",
"seed": 42,
"steps": 4
}
}')
echo
echo $response
echo
taskId=$(echo "$response" | grep -oP '(?<="taskId":")[^"]+')
if [ -z "$taskId" ]; then
echo "任务提交失败,未获取到 taskId"
exit 1
fi
echo "任务已提交,taskId: $taskId"
# Step 2: 轮询任务状态,直到完成
status="PENDING"
while [ "$status" = "PENDING" ] || [ "$status" = "RUNNING" ]; do
sleep 2
poll_response=$(curl --silent --location "https://www.sophnet.com/api/open-apis/projects/${ProjectId}/easyllms/texttoimage/task/${taskId}" \
--header "Authorization: Bearer ${API_KEY}")
status=$(echo "$poll_response" | grep -oP '(?<="taskStatus":")[^"]+')
echo "当前状态: $status"
done
echo
echo $poll_response
echo
# Step 3: 成功后下载图片
if [ "$status" = "SUCCEEDED" ]; then
image_url=$(echo "$poll_response" | grep -oP '(?<="url":")[^"]+')
if [ -n "$image_url" ]; then
echo "下载图片: $image_url"
curl --silent "$image_url" -o "${taskId}.png"
echo "图片已保存为 ${taskId}.png"
else
echo "未找到图片 URL"
fi
else
echo "任务失败,状态为: $status"
echo "完整响应: $poll_response"
fi
