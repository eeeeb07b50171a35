"""The configuration and the variables of the examples are those of the server."""

import re
from pathlib import Path

from voicechat.config import load_config

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
VARIABLE = re.compile(r"\bVOICECHAT_[A-Z_]+\b")
VALUES = {
    "VOICECHAT_API_KEY": "0123456789abcdef",
    "VOICECHAT_CLUSTER__REDIS": "redis://redis:6379/0",
    "VOICECHAT_DATA_DIR": "/data",
    "VOICECHAT_RESUMPTION__KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "VOICECHAT_RESUMPTION__STORE": "redis://redis:6379/0",
    "VOICECHAT_SERVER__HOST": "0.0.0.0",
    "VOICECHAT_SERVER__METRICS_KEY": "0123456789abcdef",
    "VOICECHAT_TRANSCRIPTION__DATABASE_URL": "postgresql://voicechat:x@postgres/voicechat",
    "VOICECHAT_TRANSCRIPTION__FOLDER": "/recordings",
}
FILES = ("Dockerfile", "compose.yaml", "env.example", "kubernetes/secret.example.yaml")


def test_the_variables_are_keys_of_the_configuration() -> None:
    used = {name for file in FILES for name in VARIABLE.findall((DEPLOY / file).read_text())}
    assert used == set(VALUES)
    config = load_config(DEPLOY / "voicechat.toml", environ=VALUES)
    assert config.server.host == "0.0.0.0"
    assert config.server.metrics_key == VALUES["VOICECHAT_SERVER__METRICS_KEY"]
    assert config.transcription.database_url == VALUES["VOICECHAT_TRANSCRIPTION__DATABASE_URL"]
    assert config.cluster.redis == VALUES["VOICECHAT_CLUSTER__REDIS"]
    assert config.resumption.store == VALUES["VOICECHAT_RESUMPTION__STORE"]
    assert str(config.transcription.folder) == "/recordings"


def test_a_container_is_killed_only_after_the_drain() -> None:
    config = load_config(DEPLOY / "voicechat.toml", environ={})
    compose, pod = (
        int(re.search(rf"{key}: (\d+)", (DEPLOY / file).read_text())[1])  # type: ignore[index]
        for key, file in (
            ("stop_grace_period", "compose.yaml"),
            ("terminationGracePeriodSeconds", "kubernetes/deployment.yaml"),
        )
    )
    goodbyes_s, pre_stop_s = 10, 5
    assert compose >= config.server.drain_s + goodbyes_s
    assert pod >= config.server.drain_s + goodbyes_s + pre_stop_s


def test_the_image_gets_every_file_that_it_copies() -> None:
    root, ignored = DEPLOY.parent, (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (root / name).exists(), name
        assert f"!{name}" in ignored, name
