"""The checks of ``s3torch doctor``: they find what is wrong with a set-up, and say what to type.

``examine`` yields findings, one for each check, in the order in which a request would meet what they look at. A check
is a plain function of the ``Session``, which holds what earlier checks have learned. It uses the client, the
credentials and the network code of a job, so that what works here works there. A check that needs what an earlier one
found broken is not tried: its finding names the cause, so that one broken thing is one failure.

Nothing waits for long: each step has some seconds, and all requests together a minute. Nothing is written unless
``Target.write`` says so, and everything that is written is removed again, also after errors.
"""

from s3torchconnector._doctor._examine import examine
from s3torchconnector._doctor._findings import Finding, Status
from s3torchconnector._doctor._session import Target

__all__ = ["Finding", "Status", "Target", "examine"]
