"""Who goes next, without threads: order, fairness, first previews, batches of one shape."""

import pytest
from colorflow_server.turns import POLICIES, Continuous, Entry, InOrder, WholeRequests


def page(turns, client="a", steps=10, **more):
    entry = Entry(client, more.pop("priority", 0), steps, 1.0, **more)
    turns.enter(entry)
    return entry


def serve(turns, pages, rows=1, until=lambda: False):
    """Step by step until all are done; the order in which they end."""
    ready, ended = list(pages), []
    while ready and not until():
        batch = turns.choose(ready, lambda entry, count: rows)
        assert batch and len(batch) <= rows and len({entry.key for entry in batch}) == 1
        turns.served(1.0)
        for entry in batch:
            entry.done += 1
            if entry.done == entry.steps:
                ready.remove(entry)
                ended.append(entry)
                turns.leave(entry)
    return ended


def test_short_pages_of_other_clients_go_first():
    turns = Continuous()
    long, short, middle = page(turns, "a", 50), page(turns, "b", 4), page(turns, "c", 10)
    assert serve(turns, [long, short, middle]) == [short, middle, long]


def test_pages_of_one_client_keep_their_order():
    turns = Continuous()
    pages = [page(turns, "a", steps) for steps in (50, 4, 10)]
    assert serve(turns, pages) == pages


def test_a_client_of_many_pages_delays_only_itself():
    turns = Continuous()
    bulk = [page(turns, "bulk") for _ in range(50)]
    single = page(turns, "single")
    assert serve(turns, [*bulk, single]).index(single) <= 1


def test_no_page_waits_for_ever_in_a_queue_that_is_always_full():
    turns, together, count = Continuous(), 20, 0
    long = page(turns, "long", 30)
    ready = [long]
    while long.done < long.steps:
        while len(ready) < together:  # whenever a page ends, a short one of a new client takes its place
            count += 1
            ready.append(page(turns, f"short {count}", 2))
        assert count * 2 < 2 * together * long.steps
        [entry] = turns.choose(ready, lambda entry, count: 1)
        turns.served(1.0)
        entry.done += 1
        if entry.done == entry.steps:
            ready.remove(entry)
            turns.leave(entry)


def test_priority_goes_before_all_else():
    turns = Continuous()
    low, high = page(turns, "a", 2, look=1), page(turns, "b", 50, priority=1)
    assert serve(turns, [low, high]) == [high, low]


def test_first_previews_go_first_if_they_are_cheap():
    turns = Continuous()
    running, new, dear = page(turns, "a", 10, done=5), page(turns, "b", 30, look=2), page(turns, "c", 30, look=20)
    first = [turns.choose([running, new, dear], lambda entry, count: 1)[0] for _ in range(1)]
    assert first == [new]
    new.done = 2
    assert turns.choose([running, new, dear], lambda entry, count: 1) == [running]


def test_batches_are_of_one_key():
    turns = Continuous()
    pages = [page(turns, f"{i}", 5, key=i % 2) for i in range(6)]
    batch = turns.choose(pages, lambda entry, count: count)
    assert batch == pages[::2]
    assert set(serve(turns, pages, rows=2)) == set(pages)


def test_in_order_keeps_to_a_page_and_whole_requests_to_a_batch():
    turns = InOrder()
    pages = [page(turns, f"{i}", steps) for i, steps in enumerate((50, 4, 10))]
    assert serve(turns, pages) == pages
    turns = WholeRequests()
    pages = [page(turns, f"{i}", steps) for i, steps in enumerate((10, 4, 10, 10))]
    seen = []
    ready = list(pages)
    while ready:
        batch = turns.choose(ready, lambda entry, count: 2)
        seen.append([pages.index(entry) for entry in batch])
        for entry in batch:
            entry.done += 1
        ready = [entry for entry in ready if entry.done < entry.steps]
    assert [pair for i, pair in enumerate(seen) if not i or pair != seen[i - 1]] == [[0, 2], [1], [3]]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_client_that_left_keeps_no_debt(policy):
    turns = POLICIES[policy]()
    serve(turns, [page(turns, "a", 100)])
    late = page(turns, "a", 5)
    assert serve(turns, [late, page(turns, "b", 6)])[0] is late


def test_a_page_that_turns_out_longer_moves_back():
    turns = Continuous()
    first, second = page(turns, "a", 10), page(turns, "b", 12)
    turns.resize(first, 60, 1.0)
    assert serve(turns, [first, second]) == [second, first]
