"""Scavengers of one model beside the regular requests of another."""

from inferd.batching.idle_cores import IdleCores


class Models:
    """Two models, and a record of those woken."""

    def __init__(self):
        self.cores = IdleCores()
        self.woken = []
        self.online = self.cores.register()
        self.scavenger = self.cores.register()
        self.online.wake = lambda: self.woken.append("online")
        self.scavenger.wake = lambda: self.woken.append("scavenger")

    def end(self):
        self.online.ended += 1
        if self.online.pool.waiting:
            self.online.wake_others()


def test_scavengers_wait_for_regular_runs_of_others():
    """Runs of other scavengers are not counted."""
    models = Models()
    assert models.scavenger.may_scavenge()
    assert models.online.may_scavenge()


def test_own_runs_of_the_model_do_not_count():
    """The model's own queue decides which of its requests go first."""
    models = Models()
    models.scavenger.begun += 1
    assert models.scavenger.may_scavenge()


def test_scavengers_wait_for_other_models_and_are_woken_once():
    """A denied model is woken once for each time that it asked."""
    models = Models()
    models.online.begun += 1
    assert not models.scavenger.may_scavenge()
    assert not models.scavenger.may_scavenge()
    models.end()
    assert models.woken == ["scavenger"]
    assert models.scavenger.may_scavenge()
    models.online.begun += 1
    models.end()
    assert models.woken == ["scavenger"]


def test_scavengers_are_woken_when_the_last_run_of_a_model_ends():
    """Not while the model has another run in progress."""
    models = Models()
    models.online.begun += 2
    assert not models.scavenger.may_scavenge()
    models.end()
    assert models.woken == []
    models.end()
    assert models.woken == ["scavenger"]


def test_run_that_ends_while_scavengers_begin_to_wait_is_noticed():
    """Otherwise no later run would wake them."""
    models = Models()
    models.online.begun += 1

    class EndsMeanwhile:
        def __enter__(self):
            models.online.ended += 1

        def __exit__(self, *_):
            pass

    models.cores._lock = EndsMeanwhile()
    assert models.scavenger.may_scavenge()


def test_unloaded_model_blocks_no_scavengers():
    """Also if it was unloaded during a run."""
    models = Models()
    models.online.begun += 1
    assert not models.scavenger.may_scavenge()
    models.online.close()
    assert models.woken == ["scavenger"]
    assert models.scavenger.may_scavenge()


def test_reports_runs_of_others_since_the_last_check():
    """The model's own runs do not count."""
    models = Models()
    models.scavenger.begun += 1
    assert not models.scavenger.others_ran()
    models.online.begun += 1
    assert models.scavenger.others_ran()
    assert not models.scavenger.others_ran()
