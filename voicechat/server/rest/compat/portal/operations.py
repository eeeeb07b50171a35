"""The endpoints of the portal."""

import asyncio
import tempfile
from pathlib import Path

from aiohttp import web

from voicechat.errors import RemoteProtocolError, Status
from voicechat.knowledge.interface import KnowledgeScope
from voicechat.pictures.picture import Picture
from voicechat.providers.media import VideoOperation, VideoRequest
from voicechat.server.auth import Principal
from voicechat.server.knowledge import base_name
from voicechat.server.rest.compat.parts import RECORDINGS, CompatParts, all_of
from voicechat.server.rest.compat.portal.schemas import (
    AsrAnswer,
    EnhancedImage,
    FileForm,
    GeneratedVideo,
    ImageToTextAnswer,
    LearningAnswer,
    LearningFileForm,
    ProcessedVideo,
)
from voicechat.server.rest.failures import Handler, ServiceFailedError
from voicechat.server.rest.fixed_text_model import MAX_TEXT_CHARACTERS, speak_texts
from voicechat.server.rest.forms import FORM
from voicechat.server.rest.media.inputs import MAX_FORM_BYTES, receive_media_form
from voicechat.server.rest.media.media import MEDIA_ERRORS
from voicechat.server.rest.media.openai_media import json_response
from voicechat.server.rest.operation import JSON, SPEECH_ERRORS, Body, Operation, Parameter
from voicechat.server.rest.schemas import ResponseModel
from voicechat.server.rest.speech import answer_with_audio, audio_of
from voicechat.session.types import VoiceSettings
from voicechat.store.access import ApiEndpoint
from voicechat.store.tasks.interface import TaskStatus

MP3 = "MP3_16000HZ_MONO_128KBPS"
POLL_S = 0.5
CAPTION = "用一句话描述这张图片。只输出这句话。"
CLASSES = "列出这张图片中主要物体的类别。只输出类别名称，用空格分隔。"
MOTION = "让这张图片自然地动起来。"
"""The prompt of a video that is made from a picture without a text."""


class Portal:
    """The endpoints. Their own clients send no key: see ``compat.guest_key``."""

    def __init__(self, parts: CompatParts) -> None:
        self._parts = parts
        self._media = parts.media

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            Operation(
                method="POST",
                paths=("/v1/asr",),
                tag="portal",
                summary="Recognise a recording",
                details="The body is the recording, of any known format, or a form with it as "
                "`file`; without a header it is 16-bit mono PCM at 16 kHz.",
                handle=self._recognise,
                forms=RECORDINGS,
                answers={200: (Body(JSON, AsrAnswer),)},
                errors=SPEECH_ERRORS,
            ),
            Operation(
                method="GET",
                paths=("/v1/tts",),
                tag="portal",
                summary="Speak a text",
                handle=self._speak,
                parameters=(
                    Parameter("query", "text", "What to say; must be present.", {"type": "string"}),
                ),
                answers={200: (Body("audio/mpeg"),)},
                errors=SPEECH_ERRORS,
            ),
            Operation(
                method="POST",
                paths=("/uploadFile/uploadLearningFile",),
                tag="portal",
                summary="Upload a file to learn from",
                details="Chat completions with this `category` answer from it. The file is read "
                "by a task after the answer.",
                handle=self._learn,
                parameters=(
                    Parameter(
                        "query",
                        "category",
                        "The knowledge base; must be present.",
                        {"type": "string", "minLength": 1, "maxLength": 64},
                    ),
                ),
                forms=(Body(FORM, LearningFileForm),),
                answers={200: (Body(JSON, LearningAnswer),)},
                errors=tuple(sorted({*MEDIA_ERRORS, 409})),
            ),
            self._on_file(
                "/image/imageToText", "Describe a picture", self._describe, ImageToTextAnswer
            ),
            self._on_file("/image/enhanceImage", "Enhance a picture", self._enhance, EnhancedImage),
            self._on_file(
                "/image/generateVideo",
                "Make a video of a picture, and wait for it",
                self._animate,
                GeneratedVideo,
            ),
            self._on_file(
                "/video/motInference",
                "Track the objects in a video",
                self._processing(VideoOperation.TRACK),
                ProcessedVideo,
            ),
            self._on_file(
                "/video/mmeditingInference",
                "Add frames to a video",
                self._processing(VideoOperation.INTERPOLATE),
                ProcessedVideo,
            ),
        ]

    def _on_file(
        self, path: str, summary: str, handle: Handler, answer: type[ResponseModel]
    ) -> Operation:
        return Operation(
            method="POST",
            paths=(path,),
            tag="portal",
            summary=summary,
            handle=handle,
            forms=(Body(FORM, FileForm),),
            answers={200: (Body(JSON, answer),)},
            errors=MEDIA_ERRORS,
        )

    async def _recognise(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.TRANSCRIPTION) as principal:
            text = await self._parts.recognise_body(request, principal)
        return json_response(AsrAnswer(result=text))

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        async with self._parts.admitted(request, ApiEndpoint.SPEECH) as principal:
            text = request.query.get("text", "")
            if not text.strip():
                raise RemoteProtocolError(Status.INVALID_PARAMETER, "text: must be present")
            if len(text) > MAX_TEXT_CHARACTERS:
                raise RemoteProtocolError(
                    Status.INVALID_PARAMETER,
                    f"text: {len(text)} characters are more than {MAX_TEXT_CHARACTERS}",
                )
            backend = self._parts.backend
            synthesizer = backend.synthesizer("tts", "default")
            voice = VoiceSettings(voice=next(iter(synthesizer.voices), ""), format=MP3)
            spoken = speak_texts(backend, principal, [text], synthesizer, voice)
            write_ms = backend.limits.write_ms
            return await answer_with_audio(request, audio_of(spoken), MP3, write_ms=write_ms)

    async def _learn(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            category = request.query.get("category", "")
            try:
                base_name(category)
            except ValueError as error:
                raise RemoteProtocolError(Status.INVALID_PARAMETER, f"category: {error}") from None
            scope = KnowledgeScope(project=principal.project, base=category)
            await self._parts.knowledge_files.receive_file(
                request, principal, scope, "fileToUpload"
            )
        return json_response(LearningAnswer(result=True))

    async def _describe(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.MEDIA):
            describer = self._media.services.vision.find("file")
            picture = await self._picture(request)
            async with self._media.asking_service():
                caption, classes = await all_of(
                    describer.describe_image(picture, question) for question in (CAPTION, CLASSES)
                )
        return json_response(ImageToTextAnswer(classification=classes, caption=caption, samUrl=""))

    async def _enhance(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.MEDIA) as principal:
            enhancer = self._media.services.enhancers.find("file")
            picture = await self._picture(request)
            async with self._media.asking_service():
                enhanced = await enhancer.enhance_image(picture)
            address = await self._media.publish(request, enhanced, principal.key_id)
        return json_response(EnhancedImage(enhanceImageUrl=address))

    async def _animate(self, request: web.Request) -> web.Response:
        async with self._parts.admitted(request, ApiEndpoint.MEDIA) as principal:
            service = self._media.services.videos.resolve("file").name
            picture = await self._picture(request)
            wanted = VideoRequest(prompt=MOTION, pictures=(picture,))
            task = await self._media.tasks.submit(principal, service, wanted)
            # The task continues if the client disconnects.
            while not task.status.finished:
                await asyncio.sleep(POLL_S)
                task = await self._media.tasks.find(principal, "video", task.id, "file")
        if task.status is TaskStatus.FAILED:
            raise ServiceFailedError(*task.failure)
        file = task.files[0]
        address = self._media.files.address(request, file.name, file.content_type)
        return json_response(GeneratedVideo(svdVideoUrl=address))

    def _processing(self, operation: VideoOperation) -> Handler:
        async def process(request: web.Request) -> web.Response:
            async with self._parts.admitted(request, ApiEndpoint.MEDIA) as principal:
                address = await self._process(request, principal, operation)
            return json_response(ProcessedVideo(data=address))

        return process

    async def _process(
        self, request: web.Request, principal: Principal, operation: VideoOperation
    ) -> str:
        processor = self._media.services.video_processors.find("file")
        if operation not in processor.operations:
            raise RemoteProtocolError(
                Status.NOT_FOUND, f"file: the configured service cannot {operation.value}"
            )
        content = await self._file(request)
        files = self._media.files
        with tempfile.TemporaryDirectory(prefix="voicechat-video-") as folder:
            source, target = Path(folder, "source"), Path(folder, "target.mp4")
            await asyncio.to_thread(source.write_bytes, content)
            async with self._media.asking_service():
                await processor.process_video(source, target, operation)
            name = await files.store(await asyncio.to_thread(target.read_bytes), principal.key_id)
        return files.address(request, name, "video/mp4")

    async def _picture(self, request: web.Request) -> Picture:
        return await self._media.inputs.inspect(await self._file(request), "file")

    async def _file(self, request: web.Request) -> bytes:
        if request.content_type != FORM:
            raise RemoteProtocolError(Status.MALFORMED, f"the body should be {FORM}")
        form = await receive_media_form(request, ("file",), MAX_FORM_BYTES)
        found = form.contents("file")
        if not found or not found[0]:
            raise RemoteProtocolError(Status.INVALID_PARAMETER, "file: must be present")
        return found[0]
