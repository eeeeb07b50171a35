"""The deployment's files, checked by the programs that read them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

pytestmark = pytest.mark.long

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def run(program: str, *arguments: str, folder: Path = DEPLOY) -> str:
    """Run a program. Skips if there is none, fails if it finds a fault."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))
    found = shutil.which(program, path=path)
    if found is None:
        pytest.skip(f"needs {program}")
    done = subprocess.run(
        [found, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_haproxy_accepts_its_configuration() -> None:
    assert "valid" in run("haproxy", "-c", "-f", "haproxy.cfg")


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    # It looks up the names, and reads the certificate.
    authority = trustme.CA()
    certificate = authority.issue_cert("voice.example")
    text = (DEPLOY / "nginx.conf").read_text()
    for number in (1, 2, 3):
        text = text.replace(f"voicechat-{number}:8000", f"127.0.0.1:800{number}")
    text = text.replace("/etc/nginx/certs", str(tmp_path))
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/nginx.pid;\nerror_log stderr;\n{text}")
    (tmp_path / "voice.example.crt").write_bytes(certificate.cert_chain_pems[0].bytes())
    (tmp_path / "voice.example.key").write_bytes(certificate.private_key_pem.bytes())
    said = run("nginx", "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
    assert "test is successful" in said


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    secret = tmp_path / "metrics_key"
    secret.write_text("0123456789abcdef")
    for file in ("prometheus.yml", "alerts.yml"):
        text = (DEPLOY / "prometheus" / file).read_text()
        (tmp_path / file).write_text(text.replace("/run/secrets/metrics_key", str(secret)))
    assert "SUCCESS" in run("promtool", "check", "config", "prometheus.yml", folder=tmp_path)


def test_the_alerts_fire_when_they_should() -> None:
    said = run("promtool", "test", "rules", "alerts.test.yml", folder=DEPLOY / "prometheus")
    assert "SUCCESS" in said


def test_hadolint_finds_no_fault_in_the_image() -> None:
    run("hadolint", "Dockerfile")


def test_docker_compose_accepts_the_cluster(tmp_path: Path) -> None:
    lines = (DEPLOY / "env.example").read_text().split("\n")
    filled = [f"{line}0123456789abcdef" if line.endswith("=") else line for line in lines]
    (tmp_path / "env").write_text("\n".join(filled))
    said = run(
        "docker-compose", "--env-file", str(tmp_path / "env"), "-f", "compose.yaml", "config"
    )
    for name in ("haproxy", "voicechat-3", "redis", "postgres", "prometheus", "grafana"):
        assert f"\n  {name}:\n" in said


@pytest.mark.parametrize("file", sorted(each.name for each in DEPLOY.glob("kubernetes/*.yaml")))
def test_kubernetes_would_accept_each_object(file: str) -> None:
    said = run("kubernetes-validate", "--strict", file, folder=DEPLOY / "kubernetes")
    assert "passed" in said
