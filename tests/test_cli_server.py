"""`colorflow colorize --server`: the same options, files and records as without, and what goes wrong in one line."""

import json
import sys

import pytest
from cli_tools import chapter, colorflow, gray_page, one_line, pictures, use_fake_pack
from colorflow_server.client import Client
from server_tools import certificates, running, slow

from colorflow_rt.references import ReferenceSet


@pytest.fixture
def home(tmp_path, monkeypatch):
    use_fake_pack(monkeypatch, tmp_path / "home")
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(sets=str(tmp_path_factory.mktemp("sets"))) as found:
        yield found


def records(out):
    """What a job folder knows of its pages, but for times."""
    found = [json.loads(path.read_text()) for path in sorted((out / ".colorflow" / "pages").glob("*.json"))]
    for record in found:
        record["details"].pop("seconds", None)
        record["details"]["references"] = [one["name"] for one in record["details"]["references"]]
    return found


def test_files_and_records_are_those_of_a_job_in_process(home, server):
    pages, refs, out = chapter(home)
    options = ("--steps", "3", "--seed", "4", "--chroma-layer", "--saturation", "0.8", "--pin", "ref1")
    assert colorflow("colorize", pages, "--refs", refs, "--out", out, *options).code == 0
    there = colorflow("colorize", pages, "--refs", refs, "--out", home / "there", *options, "--server", server.address)
    assert there.code == 0 and "3 coloured" in there.out, there
    assert pictures(home / "there") == pictures(out) and len(pictures(out)) == 4
    assert pictures(home / "there" / "chroma") == pictures(out / "chroma") != {}
    assert records(home / "there") == records(out)
    again = colorflow("colorize", pages, "--refs", refs, "--out", out, *options, "--server", server.address)
    assert "3 finished before" in again.out


def test_sets_and_approval_are_those_of_the_server(home, server):
    pages, refs, out = chapter(home, pages=2)
    ReferenceSet.create("hero").add(sorted(refs.iterdir()))
    with Client(server.address) as client:
        client.add_references("hero", sorted(refs.iterdir()))
        arguments = ("colorize", pages, "--set", "hero", "--approve")
        assert colorflow(*arguments, "--out", out).code == 0
        assert colorflow(*arguments, "--out", home / "there", "--server", server.address).code == 0
        assert pictures(home / "there") == pictures(out)
        found = [(r.name, r.source) for r in client.references("hero")]
        assert found == [(r.name, r.source) for r in ReferenceSet.open("hero").list()] and len(found) == 4
        assert colorflow(*arguments, "--out", home / "there", "--force", "--server", server.address).code == 0
        assert len(client.references("hero")) == 4
        client.delete_set("hero")


def test_a_bad_page_does_not_stop_the_others(home, server):
    pages, refs, out = chapter(home, pages=2)
    (pages / "bad.png").write_bytes(b"nothing")
    done = colorflow("colorize", pages, "--refs", refs, "--out", out, "--server", server.address)
    assert done.code == 1 and "2 coloured, 1 failed" in done.out
    assert f"error: {pages / 'bad.png'}: its content is not a PNG" in done.err


def test_what_goes_wrong_is_one_line(home, server, monkeypatch):
    page, (_, refs, out) = gray_page(home / "page.png"), chapter(home)
    to = ("--out", out, "--server", server.address)
    one_line(colorflow("colorize", page, "--refs", refs, *to, "--pack", "other"), 2, "'other' is not served", "fake")
    one_line(colorflow("colorize", page, "--set", "none", *to), 1, "no reference set is named 'none'")
    one_line(colorflow("colorize", page, "--refs", refs, *to, "--pin", "nobody"), 2, "pinned reference 'nobody'")
    token = colorflow("colorize", page, "--refs", refs, "--out", out, "--token", "x")
    one_line(token, 2, "--token is about a server: give --server")
    monkeypatch.setitem(sys.modules, "colorflow_server.remote", None)
    one_line(colorflow("colorize", page, "--refs", refs, *to), 2, "pip install 'colorflow-rt[server]'")


def test_tls_and_token(home):
    files = certificates(home / "tls")
    (home / "tokens").write_text("studio " + "t" * 20)
    given = {"tls_cert": str(files["server"]), "tls_key": str(files["server_key"]), "tokens": str(home / "tokens")}
    page, (_, refs, out) = gray_page(home / "page.png"), chapter(home)
    with running(**given) as found:
        where = ("--server", found.address, "--tls-ca", files["ca"])
        arguments = ("colorize", page, "--refs", refs, "--out", out, *where)
        assert colorflow(*arguments, "--token", "t" * 20).code == 0
        one_line(colorflow(*arguments, "--token", "y" * 20), 1, "no valid token")


def test_ctrl_c_stops_between_two_steps_and_the_job_goes_on_later(home):
    import os
    import signal
    import threading

    pages, refs, out = chapter(home)
    with running(make=slow(0.05)) as found:
        arguments = ("colorize", pages, "--refs", refs, "--out", out, "--server", found.address)

        def press():
            while not found.server.shop.scheduler.snapshot().slots_used:
                pass
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=press)
        thread.start()
        done = colorflow(*arguments, "--steps", "1000")
        thread.join()
        assert done.code == 130 and "interrupted with 3 pages left" in done.err
    with running() as found:
        assert colorflow(*arguments[:-1], found.address).code == 0
