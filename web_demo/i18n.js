// The interface's words, in English and Chinese. HTML names them: data-i18n, data-i18n-label, data-i18n-placeholder.

const ENGLISH = {
  "nav.label": "Pages", "nav.conversation": "Conversation", "nav.recognise": "Recognition", "nav.knowledge": "Knowledge", "nav.docs": "API",
  "conversation.label": "Conversation", "transcript.label": "Transcript", "panel.label": "Details",
  "panel.open": "Details", "panel.close": "Close", "language.switch": "中文", "theme.light": "Light theme", "theme.dark": "Dark theme",
  "welcome.lead": "Speak, and be answered.",
  "welcome.how": "Hold Talk while you speak, or tap it to begin and again to end. With Hands-free, just talk: a pause ends your turn, and speaking interrupts the reply.",
  "key.label": "Key of this server", "key.use": "Use key", "key.hint": "“voicechat serve” prints an address that carries it. It stays in this page's memory.",
  "state.idle": "Ready", "state.listening": "Listening", "state.thinking": "Thinking", "state.speaking": "Speaking", "state.interrupted": "Interrupted",
  "talk": "Talk", "talk.end": "Done", "handsfree": "Hands-free", "stop": "Stop",
  "say.label": "Or type here", "say.send": "Send", "strip.label": "Loudness: you above the line, the assistant below",
  "role.user": "You", "role.assistant": "Assistant", "role.typed": "You, typed", "reply.cut": "interrupted", "reply.failed": "failed: {message}",
  "connection.off": "Not connected", "connection.connecting": "Connecting", "connection.ready": "Connected", "connection.refused": "Refused",
  "connection.waiting": "Connection lost, again in {seconds} s",
  "notice.close": "Dismiss",
  "fault.key": "The server does not accept this key. Open the address that “voicechat serve” prints, or enter the key here.",
  "fault.refused": "The server refuses the conversation: {message}", "fault.ended": "The server ended the conversation after a long silence. Talk to begin again.",
  "fault.decode": "The reply's audio cannot be decoded: {message}",
  "handsfree.refused": "This server does not offer hands-free conversation, so hold Talk while you speak. It says: {message}",
  "setting.refused": "The server does not take a setting, so its default is used. It says: {message}",
  "microphone.refused": "The browser does not let this page use the microphone. Allow it beside the address, then try again. You can type meanwhile.",
  "microphone.absent": "No microphone was found. Connect one and try again, or type.",
  "microphone.busy": "The microphone cannot be opened: another program may be using it.",
  "microphone.insecure": "Browsers give the microphone only to pages from https:// or from this very machine (localhost).",
  "sound.insecure": "Replies are shown as text only: browsers give sound and microphone only to pages from https:// or from this very machine (localhost).",
  "sound.failed": "The browser gives no sound, so replies are shown as text only: {message}",
  "sound.held": "The browser holds the sound back. Touch the page or press a key to hear the reply.",
  "fault.page": "Something in this page failed: {message}",
  "microphone.failed": "The microphone does not work: {message}", "microphone.lost": "The microphone was disconnected.",
  "tab.latency": "Latency", "tab.events": "Events", "tab.settings": "Settings",
  "stage.text": "text", "stage.token": "first word", "stage.audio": "first audio", "stage.heard": "heard",
  "legend.text": "end of speech to its text", "legend.token": "text to the reply's first word", "legend.audio": "first word to first audio", "legend.heard": "first audio to loudspeaker",
  "latency.none": "Each turn draws its delay here, from the end of your speech to the moment you hear the reply.",
  "latency.median": "median, end of speech to heard", "latency.turn": "Turn {number}: {total} ms",
  "log.filter": "Filter", "log.pause": "Pause", "log.download": "Save", "log.time": "Time", "log.direction": "Direction", "log.message": "Message", "log.size": "Size", "log.audio": "audio {ms} ms",
  "settings.services": "Services", "settings.model": "Chat model", "settings.asr": "Recognition", "settings.tts": "Speech", "settings.voice": "Voice", "settings.voice.default": "the service's own",
  "settings.speed": "Speed", "settings.format": "Reply audio", "settings.downlink": "Reply audio as binary frames", "settings.sound": "Sound", "settings.microphone": "Microphone", "settings.microphone.default": "the system's own",
  "settings.mode": "Speech during a reply", "settings.mode.online": "next turn", "settings.mode.refresh": "ignored", "settings.system": "Instructions to the model", "settings.handsfree": "Hands-free",
  "settings.silence": "Pause that ends a turn, ms", "settings.interruption": "Speech that interrupts, ms", "settings.threshold": "Speech threshold, 0 to 1", "settings.forget": "Forget the conversation", "settings.hint": "Changes take effect at once, over a new connection that remembers what was said.",
  "docs.lead": "What this server speaks, by HTTP and over WebSockets. Every example can be copied as it stands, and everything can be tried here.",
  "docs.contents": "Contents", "docs.find": "Find an endpoint", "docs.machine": "Machine readable:", "docs.key": "Your key", "docs.project": "Project",
  "docs.key.hint": "Fills in the examples and is used for trying. It stays in this page's memory.",
  "docs.tag.chat": "Chat", "docs.tag.speech": "Speech", "docs.tag.transcription": "Transcription", "docs.tag.images": "Pictures", "docs.tag.videos": "Videos", "docs.tag.knowledge": "Knowledge", "docs.tag.records": "Records and usage", "docs.tag.sophnet": "SophNet", "docs.tag.platforms": "Platforms", "docs.tag.portal": "Portal", "docs.tag.relay": "Relay", "docs.tag.spark": "Spark", "docs.tag.tokens": "Tokens", "docs.tag.server": "Server", "docs.tag.sockets": "Sockets",
  "docs.required": "required", "docs.default": "default", "docs.fields": "Fields", "docs.also": "Other paths", "docs.parameters": "Parameters", "docs.body": "Request body", "docs.answers": "Answers", "docs.errors": "Errors",
  "docs.up": "You send", "docs.down": "You receive", "docs.copy": "Copy", "docs.copied": "Copied", "docs.selected": "Selected", "docs.try": "Try it", "docs.send": "Send", "docs.stop": "Stop", "docs.stopped": "Stopped.",
  "docs.type": "Content type", "docs.nokey": "Enter your key first, at the top of this page.", "docs.failed": "That failed: {message}", "docs.save": "Save the audio",
  "docs.message": "Message", "docs.connect": "Connect", "docs.disconnect": "Disconnect", "docs.connecting": "Connecting", "docs.connected": "Connected", "docs.closed": "Closed: {code} {reason}", "docs.bytes": "{count} bytes of audio",
  "recognise.title": "Recognition", "recognise.lead": "Words as they are recognised.", "recognise.drop": "Drop a recording here, or", "recognise.choose": "choose a file", "recognise.speak": "Speak", "recognise.stop": "Stop", "recognise.empty": "What is recognised appears here.",
  "recognise.save": "Save as", "recognise.progress": "{done} of {total} s", "recognise.unreadable": "This file cannot be read as audio.", "recognise.closed": "The server closed the connection: {reason}", "recognise.done": "Done: {seconds} s of audio", "recognise.label": "Recognised text",
  "knowledge.title": "Knowledge", "knowledge.base": "Agent or knowledge base", "knowledge.open": "Open", "knowledge.files": "Documents", "knowledge.drop": "Drop documents here, or", "knowledge.choose": "choose files", "knowledge.empty": "No documents yet. PDF, Word, Excel, PowerPoint, text and CSV are read.",
  "knowledge.sending": "sending, {percent} %", "knowledge.reading": "reading, {percent} %", "knowledge.failed": "cannot be used: {reason}", "knowledge.passages": "{count} passages", "knowledge.off": "not searched", "knowledge.remove": "Delete", "knowledge.remove.label": "Delete {title}",
  "knowledge.try": "Try a question", "knowledge.question": "A question, as a user would ask it", "knowledge.ask": "Search", "knowledge.found": "{count} passages, the best first", "knowledge.nothing": "Nothing was found.", "knowledge.page": "page {page}", "knowledge.qa": "question and answer",
};

const CHINESE = {
  "nav.label": "页面", "nav.conversation": "对话", "nav.recognise": "识别", "nav.knowledge": "知识库", "nav.docs": "接口",
  "conversation.label": "对话", "transcript.label": "对话内容", "panel.label": "详情",
  "panel.open": "详情", "panel.close": "关闭", "language.switch": "English", "theme.light": "浅色主题", "theme.dark": "深色主题",
  "welcome.lead": "你说，它答。",
  "welcome.how": "按住“说话”讲话；也可以点一下开始，再点一下结束。打开“免提”后直接说：停顿即结束，开口即打断。",
  "key.label": "服务器密钥", "key.use": "使用密钥", "key.hint": "“voicechat serve” 打印的地址里带有密钥。它只留在本页的内存中。",
  "state.idle": "就绪", "state.listening": "在听", "state.thinking": "在想", "state.speaking": "在说", "state.interrupted": "已打断",
  "talk": "说话", "talk.end": "说完了", "handsfree": "免提", "stop": "停止",
  "say.label": "也可以打字", "say.send": "发送", "strip.label": "音量：线上是你，线下是助手",
  "role.user": "你", "role.assistant": "助手", "role.typed": "你（打字）", "reply.cut": "被打断", "reply.failed": "失败：{message}",
  "connection.off": "未连接", "connection.connecting": "连接中", "connection.ready": "已连接", "connection.refused": "被拒绝",
  "connection.waiting": "连接断开，{seconds} 秒后重试",
  "notice.close": "知道了",
  "fault.key": "服务器不接受这个密钥。请打开 “voicechat serve” 打印的地址，或在这里输入密钥。",
  "fault.refused": "服务器拒绝了对话：{message}", "fault.ended": "长时间没有声音，服务器结束了对话。再说话即可重新开始。",
  "fault.decode": "无法解码回复的音频：{message}",
  "handsfree.refused": "这台服务器不支持免提，请按住“说话”讲话。服务器的说明：{message}",
  "setting.refused": "服务器不接受某项设置，已改用默认值。服务器的说明：{message}",
  "microphone.refused": "浏览器不允许本页使用麦克风。请在地址栏旁允许后再试；也可以先打字。",
  "microphone.absent": "没有找到麦克风。请接上后再试，或者打字。",
  "microphone.busy": "无法打开麦克风：可能正被其他程序使用。",
  "microphone.insecure": "浏览器只允许 https:// 或本机（localhost）的页面使用麦克风。",
  "sound.insecure": "回复只以文字显示：浏览器只允许 https:// 或本机（localhost）的页面使用声音和麦克风。",
  "sound.failed": "浏览器无法发声，回复只以文字显示：{message}",
  "sound.held": "浏览器暂时不让发声。点一下页面或按任意键即可听到回复。",
  "fault.page": "本页出错了：{message}",
  "microphone.failed": "麦克风无法工作：{message}", "microphone.lost": "麦克风已断开。",
  "tab.latency": "延迟", "tab.events": "事件", "tab.settings": "设置",
  "stage.text": "文字", "stage.token": "首词", "stage.audio": "首个音频", "stage.heard": "听到",
  "legend.text": "说完到出文字", "legend.token": "文字到回复首词", "legend.audio": "首词到首个音频", "legend.heard": "首个音频到扬声器",
  "latency.none": "每一轮从你说完到听见回复的延迟都会画在这里。",
  "latency.median": "中位数：说完到听见", "latency.turn": "第 {number} 轮：{total} 毫秒",
  "log.filter": "筛选", "log.pause": "暂停", "log.download": "保存", "log.time": "时间", "log.direction": "方向", "log.message": "消息", "log.size": "大小", "log.audio": "音频 {ms} 毫秒",
  "settings.services": "服务", "settings.model": "对话模型", "settings.asr": "识别", "settings.tts": "合成", "settings.voice": "音色", "settings.voice.default": "服务默认",
  "settings.speed": "语速", "settings.format": "回复音频", "settings.downlink": "回复音频用二进制帧", "settings.sound": "声音", "settings.microphone": "麦克风", "settings.microphone.default": "系统默认",
  "settings.mode": "回复期间说的话", "settings.mode.online": "算下一轮", "settings.mode.refresh": "忽略", "settings.system": "给模型的指示", "settings.handsfree": "免提",
  "settings.silence": "停顿多久算说完（毫秒）", "settings.interruption": "说多久算打断（毫秒）", "settings.threshold": "语音阈值（0 到 1）", "settings.forget": "清除对话", "settings.hint": "更改立即生效：会重新连接，并记得说过的话。",
  "docs.lead": "这台服务器的 HTTP 接口与 WebSocket。示例可以直接复制，也可以当场试用。",
  "docs.contents": "目录", "docs.find": "查找接口", "docs.machine": "机器可读：", "docs.key": "你的密钥", "docs.project": "项目",
  "docs.key.hint": "会填入示例，并用于试用。它只留在本页的内存中。",
  "docs.tag.chat": "对话", "docs.tag.speech": "语音合成", "docs.tag.transcription": "语音识别", "docs.tag.images": "图片", "docs.tag.videos": "视频", "docs.tag.knowledge": "知识库", "docs.tag.records": "记录与用量", "docs.tag.sophnet": "SophNet", "docs.tag.platforms": "多平台", "docs.tag.portal": "门户", "docs.tag.relay": "中转", "docs.tag.spark": "星火", "docs.tag.tokens": "令牌", "docs.tag.server": "服务器", "docs.tag.sockets": "WebSocket",
  "docs.required": "必填", "docs.default": "默认", "docs.fields": "字段", "docs.also": "其他路径", "docs.parameters": "参数", "docs.body": "请求体", "docs.answers": "返回", "docs.errors": "错误",
  "docs.up": "你发送的", "docs.down": "你收到的", "docs.copy": "复制", "docs.copied": "已复制", "docs.selected": "已选中", "docs.try": "试一试", "docs.send": "发送", "docs.stop": "停止", "docs.stopped": "已停止。",
  "docs.type": "内容类型", "docs.nokey": "请先在页首填写密钥。", "docs.failed": "失败：{message}", "docs.save": "保存音频",
  "docs.message": "消息", "docs.connect": "连接", "docs.disconnect": "断开", "docs.connecting": "连接中", "docs.connected": "已连接", "docs.closed": "已关闭：{code} {reason}", "docs.bytes": "{count} 字节音频",
  "recognise.title": "识别", "recognise.lead": "边说边出文字。", "recognise.drop": "把录音拖到这里，或", "recognise.choose": "选择文件", "recognise.speak": "说话", "recognise.stop": "停止", "recognise.empty": "识别结果显示在这里。",
  "recognise.save": "另存为", "recognise.progress": "{done} / {total} 秒", "recognise.unreadable": "无法把这个文件读作音频。", "recognise.closed": "服务器关闭了连接：{reason}", "recognise.done": "完成：{seconds} 秒音频", "recognise.label": "识别文字",
  "knowledge.title": "知识库", "knowledge.base": "智能体或知识库", "knowledge.open": "打开", "knowledge.files": "文档", "knowledge.drop": "把文档拖到这里，或", "knowledge.choose": "选择文件", "knowledge.empty": "还没有文档。支持 PDF、Word、Excel、PowerPoint、文本和 CSV。",
  "knowledge.sending": "上传中 {percent}%", "knowledge.reading": "读取中 {percent}%", "knowledge.failed": "无法使用：{reason}", "knowledge.passages": "{count} 段", "knowledge.off": "不参与检索", "knowledge.remove": "删除", "knowledge.remove.label": "删除 {title}",
  "knowledge.try": "试一个问题", "knowledge.question": "像用户那样提问", "knowledge.ask": "检索", "knowledge.found": "{count} 段，最相关的在前", "knowledge.nothing": "没有找到。", "knowledge.page": "第 {page} 页", "knowledge.qa": "问答",
};

export const LANGUAGES = { en: ENGLISH, zh: CHINESE };
let words = ENGLISH;

/** The text of a key, `{name}` replaced by `values.name`. */
export function text(key, values = {}) {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export function preferredLanguage(languages = navigator.languages ?? []) {
  return languages[0]?.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** Change the language of the page. Whoever writes texts himself listens for `language` on the document. */
export function setLanguage(language) {
  words = LANGUAGES[language] ?? ENGLISH;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  translate(document);
  document.dispatchEvent(new Event("language"));
}

/** Fill in the texts of the elements below `root`. */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-i18n]")) element.textContent = text(element.dataset.i18n);
  for (const element of root.querySelectorAll("[data-i18n-label]")) element.setAttribute("aria-label", text(element.dataset.i18nLabel));
  for (const element of root.querySelectorAll("[data-i18n-placeholder]")) element.placeholder = text(element.dataset.i18nPlaceholder);
}
