"""How long is waited for what may never come: the one table, in seconds."""

from __future__ import annotations

__all__ = ["ANSWER", "BEGUN", "GRACE", "KNOCK", "PUBLISHED", "QUESTION", "TICK", "UNANSWERED"]

TICK = 0.2
"""Seconds between two looks at what may be missing."""

GRACE = 1.0
"""Seconds without any message of a request before the kernel is asked behind it."""

ANSWER = 10.0
"""Seconds for an answer to what was asked; past them what is missing is given up, unless it is all that is."""

BEGUN = 60.0
"""The same where the kernel has said that it has begun: some handle several at a time, and one may take long."""

QUESTION = 300.0
"""Seconds without a word of code whose question may be lost; it may as well be code that runs and says nothing."""

UNANSWERED = 1.0
"""The same for a request whose idle status is here, on a control channel where nothing ever answered; four
implementations are silent there."""

PUBLISHED = 30.0
"""Seconds for iopub to say anything, where the kernel has answered and what it published is still on its way."""

KNOCK = 60.0
"""Seconds between two questions on control, while a request waits of which the kernel says nothing."""
