"""The demo: real prompts through the full live loop, in a simulated world where one model fails.

Only the world is simulated: when queries arrive, what each model answered (recorded in the log of
package ``paretobandit``) and when that is known. Router, joiner, learner, loop and store are those
that serve. A run that is killed at any moment goes on after its last stored step and ends with the
same bytes as one that never stopped.
"""

from bandit_router.demo.live import LiveDemo, Record, read_record
from bandit_router.demo.world import Drop, World, demo_log, make_world

__all__ = ["Drop", "LiveDemo", "Record", "World", "demo_log", "make_world", "read_record"]
