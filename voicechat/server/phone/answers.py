"""The answers to each provider: connect the call to a stream, connect it to a number,
apologise, or hang up.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode
from xml.sax.saxutils import escape, quoteattr

XML, JSON = "application/xml", "application/json"
LINE_HZ = 8_000
"""The sample rate requested from providers that offer a choice. Telephone audio has no
more, and the rate shows a recogniser that the speech ends at 4 kHz.
"""
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """An incoming call, as the webhook describes it."""

    call_id: str
    called: str
    caller: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAddress:
    """The stream that a call is connected to."""

    url: str
    after_url: str
    """The URL that the provider calls when the stream has ended."""
    token: str


class PhoneProvider(ABC):
    """One provider's answers, and its names for the fields of a call."""

    content_type = XML
    fields: tuple[str, str, str] = ("CallSid", "To", "From")
    """The provider's field names for a call's id, the called number and the calling
    number.
    """

    def incoming(self, given: Mapping[str, str]) -> Incoming:
        """Read the fields of a webhook."""
        call_id, called, caller = (given.get(name, "")[:200] for name in self.fields)
        return Incoming(call_id=call_id, called=called, caller=caller)

    @abstractmethod
    def connect(self, call: Incoming, stream: StreamAddress) -> str:
        """Connect the call to a stream."""

    @abstractmethod
    def transfer(self, transfer_to: str) -> str:
        """Connect the call to a number or a SIP address."""

    @abstractmethod
    def apologise(self, text: str, language: str) -> str:
        """Say ``text`` and hang up."""

    @abstractmethod
    def hang_up(self) -> str:
        """Hang up."""


class Twilio(PhoneProvider):
    """twilio.com/docs/voice/twiml. The parameters are inside the stream element,
    because its address may have no query.
    """

    def connect(self, call: Incoming, stream: StreamAddress) -> str:
        """See ``PhoneProvider``."""
        values = {"token": stream.token, "called": call.called, "caller": call.caller}
        parameters = "".join(
            f"<Parameter name={quoteattr(name)} value={quoteattr(value)}/>"
            for name, value in values.items()
        )
        return _response(
            f"<Connect action={quoteattr(stream.after_url)}>"
            f"<Stream url={quoteattr(stream.url)}>{parameters}</Stream></Connect>"
        )

    def transfer(self, transfer_to: str) -> str:
        """See ``PhoneProvider``."""
        to = escape(transfer_to)
        return _response(f"<Dial>{f'<Sip>{to}</Sip>' if to.startswith('sip:') else to}</Dial>")

    def apologise(self, text: str, language: str) -> str:
        """See ``PhoneProvider``."""
        return _response(f"<Say language={quoteattr(language)}>{escape(text)}</Say><Hangup/>")

    def hang_up(self) -> str:
        """See ``PhoneProvider``."""
        return _response("<Hangup/>")


class Telnyx(Twilio):
    """developers.telnyx.com/docs/voice/programmable-voice/texml-verbs. It has TwiML's
    verbs, and a stream without parameters.
    """

    def connect(self, call: Incoming, stream: StreamAddress) -> str:
        """See ``PhoneProvider``."""
        return _response(
            f"<Connect action={quoteattr(stream.after_url)}>"
            f"<Stream url={quoteattr(_queried(call, stream))} "
            'bidirectionalMode="rtp" bidirectionalCodec="PCMU"/></Connect>'
        )


class Plivo(PhoneProvider):
    """plivo.com/docs/voice/xml. ``extraHeaders`` allow only letters and digits, so the
    parameters are in the address.
    """

    fields = ("CallUUID", "To", "From")

    def connect(self, call: Incoming, stream: StreamAddress) -> str:
        """See ``PhoneProvider``."""
        return _response(
            '<Stream bidirectional="true" keepCallAlive="true" '
            'contentType="audio/x-mulaw;rate=8000">'
            f"{escape(_queried(call, stream))}</Stream>"
            f'<Redirect method="POST">{escape(stream.after_url)}</Redirect>'
        )

    def transfer(self, transfer_to: str) -> str:
        """See ``PhoneProvider``."""
        to = escape(transfer_to)
        kind = "User" if to.startswith("sip:") else "Number"
        return _response(f"<Dial><{kind}>{to}</{kind}></Dial>")

    def apologise(self, text: str, language: str) -> str:
        """See ``PhoneProvider``."""
        return _response(f"<Speak language={quoteattr(language)}>{escape(text)}</Speak><Hangup/>")

    def hang_up(self) -> str:
        """See ``PhoneProvider``."""
        return _response("<Hangup/>")


class Vonage(PhoneProvider):
    """developer.vonage.com/en/voice/voice-api/ncco-reference. When the stream has
    ended, ``notify`` asks how the call continues.
    """

    content_type = JSON
    fields = ("uuid", "to", "from")

    def connect(self, call: Incoming, stream: StreamAddress) -> str:
        """See ``PhoneProvider``."""
        headers = {
            "token": stream.token,
            "to": call.called,
            "from": call.caller,
            "uuid": call.call_id,
        }
        endpoint = {
            "type": "websocket",
            "uri": stream.url,
            "content-type": f"audio/l16;rate={LINE_HZ}",
            "headers": headers,
        }
        ask = {"action": "notify", "payload": {"over": True}, "eventUrl": [stream.after_url]}
        return json.dumps([{"action": "connect", "endpoint": [endpoint]}, ask])

    def transfer(self, transfer_to: str) -> str:
        """See ``PhoneProvider``."""
        if transfer_to.startswith("sip:"):
            endpoint = {"type": "sip", "uri": transfer_to}
        else:
            endpoint = {"type": "phone", "number": transfer_to.removeprefix("+")}
        return json.dumps([{"action": "connect", "endpoint": [endpoint]}])

    def apologise(self, text: str, language: str) -> str:
        """See ``PhoneProvider``."""
        return json.dumps([{"action": "talk", "text": text, "language": language}])

    def hang_up(self) -> str:
        """See ``PhoneProvider``."""
        return json.dumps([])


class Exotel(PhoneProvider):
    """developer.exotel.com/docs/agentstream. The Voicebot applet requests the stream's
    address, and the Connect applet after it requests the number.
    """

    content_type = JSON
    fields = ("CallSid", "CallTo", "CallFrom")

    def connect(self, call: Incoming, stream: StreamAddress) -> str:
        """See ``PhoneProvider``."""
        return json.dumps({"url": _queried(call, stream)})

    def transfer(self, transfer_to: str) -> str:
        """See ``PhoneProvider``."""
        return json.dumps({"destination": {"numbers": [transfer_to]}})

    def apologise(self, text: str, language: str) -> str:
        """Return no address: the flow continues with its next applet, which can
        apologise.
        """
        return self.hang_up()

    def hang_up(self) -> str:
        """See ``PhoneProvider``."""
        return json.dumps({})


class Jambonz(PhoneProvider):
    """docs.jambonz.org/verbs. An answer is an array of verbs; ``actionHook`` asks how
    the call continues.
    """

    content_type = JSON
    fields = ("call_sid", "to", "from")

    def connect(self, call: Incoming, stream: StreamAddress) -> str:
        """See ``PhoneProvider``."""
        listen = {
            "verb": "listen",
            "url": stream.url,
            "actionHook": stream.after_url,
            "sampleRate": LINE_HZ,
            "mixType": "mono",
            "passDtmf": True,
            "bidirectionalAudio": {"enabled": True, "streaming": True, "sampleRate": LINE_HZ},
            "metadata": {"token": stream.token, "called": call.called, "caller": call.caller},
        }
        return json.dumps([{"verb": "answer"}, listen])

    def transfer(self, transfer_to: str) -> str:
        """See ``PhoneProvider``."""
        if transfer_to.startswith("sip:"):
            target = {"type": "sip", "sipUri": transfer_to}
        else:
            target = {"type": "phone", "number": transfer_to}
        return json.dumps([{"verb": "dial", "target": [target]}])

    def apologise(self, text: str, language: str) -> str:
        """See ``PhoneProvider``."""
        said = {"verb": "say", "text": text, "synthesizer": {"language": language}}
        return json.dumps([said, {"verb": "hangup"}])

    def hang_up(self) -> str:
        """See ``PhoneProvider``."""
        return json.dumps([{"verb": "hangup"}])


PROVIDERS: Mapping[str, PhoneProvider] = {
    "twilio": Twilio(),
    "telnyx": Telnyx(),
    "plivo": Plivo(),
    "vonage": Vonage(),
    "exotel": Exotel(),
    "jambonz": Jambonz(),
}
"""The providers by their names in the paths."""


def _response(verbs: str) -> str:
    return f"{_HEAD}<Response>{verbs}</Response>"


def _queried(call: Incoming, stream: StreamAddress) -> str:
    values = {"token": stream.token, "called": call.called, "caller": call.caller}
    return f"{stream.url}?{urlencode(values)}"
