"""Who may call: TLS, mutual TLS, tokens, and their replacement while the server serves; each over a real socket."""

import shutil
import time

import grpc
import pytest
from colorflow_server.access import read_tokens
from colorflow_server.pb import colorflow_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server_tools import certificates, failure, request, running, stub

from colorflow_rt.errors import OptionError

INFO = pb.GetServerInfoRequest()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("tls"))


def trusting(files, who=None):
    pair = [files[f"{who}_key"].read_bytes(), files[who].read_bytes()] if who else [None, None]
    return grpc.ssl_channel_credentials(files["ca"].read_bytes(), *pair)


def test_tls(files):
    with running(tls_cert=str(files["server"]), tls_key=str(files["server_key"])) as found:
        with stub(found.address, trusting(files)) as service:
            assert service.Colorize(request()).result.style == "gray"
        with stub(found.address) as plain:
            assert failure(lambda: plain.GetServerInfo(INFO, timeout=10))[0] == "UNAVAILABLE"
        with stub(found.address, grpc.ssl_channel_credentials()) as distrustful:
            assert failure(lambda: distrustful.GetServerInfo(INFO, timeout=10))[0] == "UNAVAILABLE"


def test_mutual_tls_knows_the_client_by_its_certificate(files):
    ca = str(files["ca"])
    with running(tls_cert=str(files["server"]), tls_key=str(files["server_key"]), tls_client_ca=ca) as found:
        with stub(found.address, trusting(files, "client")) as service:
            service.GetServerInfo(INFO)
        assert [line["client"] for line in found.log if line["event"] == "call"] == ["studio"]
        with stub(found.address, trusting(files)) as nobody:
            assert failure(lambda: nobody.GetServerInfo(INFO, timeout=10))[0] == "UNAVAILABLE"


def test_certificates_are_taken_over_at_the_next_handshake(files, tmp_path):
    other = certificates(tmp_path / "other")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(pair):
        for path, name in ((cert, "server"), (key, "server_key")):
            shutil.copy(pair[name], tmp_path / "new")
            (tmp_path / "new").replace(path)

    install(files)
    with running(tls_cert=str(cert), tls_key=str(key)) as found:
        with stub(found.address, trusting(files)) as service:
            service.GetServerInfo(INFO)
            install(other)
            service.GetServerInfo(INFO)  # the connection that is open stays
        with stub(found.address, trusting(other)) as service:
            service.GetServerInfo(INFO, timeout=10)
        with stub(found.address, trusting(files)) as service:
            assert failure(lambda: service.GetServerInfo(INFO, timeout=10))[0] == "UNAVAILABLE"
        cert.write_text("no certificate")
        with stub(found.address, trusting(other)) as service:
            service.GetServerInfo(INFO, timeout=10)
        assert [line["event"].split(",")[0] for line in found.log if line["logger"] == "colorflow.access"] == [
            "certificates reloaded",
            "certificates not reloaded",
        ]


@pytest.mark.parametrize("name", ["server", "server_key"])
def test_files_that_do_not_belong_together_stop_the_start(files, name, tmp_path):
    given = {"server": files["server"], "server_key": files["server_key"]} | {name: files["client" + name[6:]]}
    with (
        pytest.raises(OptionError, match="cannot be used"),
        running(tls_cert=str(given["server"]), tls_key=str(given["server_key"])),
    ):
        pass


TOKEN, OTHER = "t" * 20, "o" * 24


def bearer(token, scheme="Bearer"):
    return (("authorization", f"{scheme} {token}"),)


def test_tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# who may come\nstudio {TOKEN}\n")
    with running(tokens=str(file), reload_s=0.05) as found, stub(found.address) as service:
        assert service.Colorize(request(), metadata=bearer(TOKEN)).result.style == "gray"
        for wrong in ((), bearer("x" * 20), bearer(TOKEN, "Basic"), bearer(""), (("authorization", TOKEN),)):
            code, message, _ = failure(lambda wrong=wrong: service.Colorize(request(), metadata=wrong))
            assert code == "UNAUTHENTICATED" and TOKEN not in message
            code, _, _ = failure(lambda wrong=wrong: list(service.ColorizeSequence(iter([]), metadata=wrong)))
            assert code == "UNAUTHENTICATED"
        with grpc.insecure_channel(found.address) as channel:
            assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
            ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
            query = reflection_pb2.ServerReflectionRequest(list_services="")
            assert failure(lambda: list(ask(iter([query]))))[0] == "UNAUTHENTICATED"
            assert list(ask(iter([query]), metadata=bearer(TOKEN)))
        replaced(file, f"other {OTHER}\n")
        wait_for(lambda: any(line["event"] == "tokens reloaded" for line in found.log))
        assert failure(lambda: service.GetServerInfo(INFO, metadata=bearer(TOKEN)))[0] == "UNAUTHENTICATED"
        service.GetServerInfo(INFO, metadata=bearer(OTHER))
        replaced(file, "nonsense\n")
        wait_for(lambda: any("tokens not reloaded" in line["event"] for line in found.log))
        service.GetServerInfo(INFO, metadata=bearer(OTHER))
        assert TOKEN not in str(found.log) and OTHER not in str(found.log)
        assert {line["client"] for line in found.log if line["event"] == "page"} == {"studio"}


def replaced(file, text):
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def wait_for(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no token"),
        ("# nothing\n\n", "no token"),
        ("studio short\n", "line 1"),
        (f"a {TOKEN}\nb {TOKEN}\n", "line 2"),
        (f"a b {TOKEN}\n", "line 1"),
    ],
)
def test_a_file_of_tokens_that_is_none(tmp_path, text, said):
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(OptionError, match=said) as caught:
        read_tokens(tmp_path / "tokens")
    assert TOKEN not in str(caught.value)


def test_a_file_of_tokens_that_is_not_there(tmp_path):
    with pytest.raises(OptionError, match="No such file"):
        read_tokens(tmp_path / "none")
