"""What the people of the scripted dialogues say. The policy was tuned on `DEV` only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bank:
    """Phrases of one language. A turn is some ``parts`` with a pause after each, then
    one of ``ends``.
    """

    chinese: bool
    plain_parts: tuple[str, ...]
    """Cut where no word tells that more will come."""
    open_parts: tuple[str, ...]
    """Cut after a conjunction, an article, a hesitation."""
    ends: tuple[str, ...]
    numbers: tuple[tuple[str, ...], ...]
    """Groups of digits, with a pause between the groups; the turn ends with the last.
    """
    backchannels: tuple[str, ...]
    interruptions: tuple[str, ...]
    commands: tuple[str, ...]
    """Short interruptions."""


DEV = (
    Bank(
        chinese=False,
        plain_parts=(
            "i would like to book a table",
            "last week i ordered a lamp",
            "my sister lives in leeds",
        ),
        open_parts=(
            "i want to fly to paris and",
            "could you tell me um",
            "the problem is that the",
            "it does not work because",
            "i am looking for",
        ),
        ends=(
            "for two people please",
            "what should i do",
            "can you help me with that",
            "i need it by friday",
        ),
        numbers=(
            ("my number is zero two zero", "five five five", "one nine eight four"),
            ("it is 44", "207", "9460"),
        ),
        backchannels=("mm-hmm", "right", "yeah", "okay", "uh-huh"),
        interruptions=(
            "but i asked about the other one",
            "what about the price of the ticket",
            "can you say that slower",
        ),
        commands=("stop", "wait", "no no"),
    ),
    Bank(
        chinese=True,
        plain_parts=("我想订一张票", "昨天我买了一台电脑", "我妈妈住在杭州"),
        open_parts=("我想去北京然后", "请问那个", "这个东西坏了因为", "我要找一个", "我们可以嗯"),
        ends=("你能帮我看看吗", "应该怎么办", "明天早上八点出发", "多少钱"),
        numbers=(("我的电话是一三八", "零零一三", "八零零零"),),
        backchannels=("嗯", "对", "好的", "哦", "是的"),
        interruptions=("可是我问的是另外一个", "那价格是多少", "你说慢一点"),
        commands=("停", "等一下", "不对"),
    ),
)

TEST = (
    Bank(
        chinese=False,
        plain_parts=(
            "there was a letter in the box",
            "i bought two chairs yesterday",
            "our train leaves at noon",
            "he told me about the new museum",
            "the printer upstairs",
        ),
        open_parts=(
            "we thought about spain but",
            "let me think",
            "it depends on whether",
            "she works with",
            "so what i mean is uh",
            "i have been trying to",
            "you know",
            "if the weather is good then",
            "hang on a second er",
            "somewhere near the",
        ),
        ends=(
            "is there a cheaper one",
            "tell me how to get there",
            "i would rather take the bus",
            "which of them is open on sunday",
            "write it down for me please",
            "and that is what i am waiting for",
        ),
        numbers=(
            ("the code is seven one", "four four nine", "two six"),
            ("call me on oh seven seven", "three one two", "eight eight five nine"),
            ("order 1 8 3", "5 5 2"),
        ),
        backchannels=(
            "mhm",
            "yeah yeah",
            "i see",
            "got it",
            "sure",
            "oh wow",
            "right right",
            "gotcha",
        ),
        interruptions=(
            "actually make it three nights",
            "i already know that part",
            "right but when does it open",
            "let us talk about something else",
            "how far is it from here",
            "yeah and what about the children",
        ),
        commands=("hold on", "stop stop", "wait a second", "that is enough", "no"),
    ),
    Bank(
        chinese=True,
        plain_parts=(
            "楼下新开了一家店",
            "上个月我们搬到了上海",
            "他跟我说了会议的事",
            "箱子里有一封信",
            "火车中午开",
        ),
        open_parts=(
            "我们本来想去云南但是",
            "让我想一想",
            "这要看是不是",
            "怎么说呢",
            "如果天气好的话",
            "我一直想要",
            "就是那个呃",
            "她是在一个",
            "因为孩子还小所以",
        ),
        ends=(
            "有没有便宜一点的",
            "告诉我怎么走",
            "我还是坐公交吧",
            "哪一家星期天开门",
            "帮我记下来",
            "我在等的就是这个",
        ),
        numbers=(
            ("验证码是七一", "四四九", "二六"),
            ("你打我手机一五九", "二二零三", "六六一八"),
            ("订单号幺八三", "五五二"),
        ),
        backchannels=("嗯嗯", "对对", "哦这样", "明白", "行", "好好", "是吗", "懂了", "真的呀"),
        interruptions=(
            "其实改成三个晚上吧",
            "这个我已经知道了",
            "对但是几点开门",
            "我们换个话题",
            "离这里有多远",
            "好那孩子怎么办",
        ),
        commands=("等等", "停一下", "别说了", "够了", "不是"),
    ),
)
