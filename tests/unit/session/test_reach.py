"""Whether all that the tables name does happen: what is rare by scripts, all else by a search.

What is found by neither has no place in a table.
"""

import pytest

from gateway.session.session import Session
from gateway.session.table import State
from gateway.session.upstream import Upstream
from tests.support.wanderer import Found, missing, recorded, search
from tests.unit.session import test_rare
from tests.unit.session.test_renewing import TestLoss


@pytest.mark.long
def test_all_that_the_tables_name_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Found = {}
    monkeypatch.setattr(Session, "handle", recorded(Session.handle, found))
    monkeypatch.setattr(Upstream, "handle", recorded(Upstream.handle, found))
    test_rare.test_the_session_expires_in_the_moment_in_which_a_turn_is_to_be_sent_again()
    test_rare.test_it_expires_while_a_turn_waits_to_be_sent_again()
    test_rare.test_the_next_turn_needs_another_one_then()
    for resume_seconds, then in ((0.0, State.CLOSED), (3.0, State.ENDED)):
        test_rare.test_the_last_turn_is_cancelled_when_nobody_is_there(resume_seconds, then)
    test_rare.test_a_new_session_expires_while_it_is_told_what_was_said()
    test_rare.test_the_client_has_closed_and_gone_before_the_model_opens()
    TestLoss().test_a_replay_that_is_turned_away_is_tried_again()
    test_rare.test_who_speaks_without_reading_gives_the_session_more_time()
    search(found)
    assert missing(found) == []
