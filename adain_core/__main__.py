"""`python -m adain_core` is the `adain` command."""

import sys

from .cli import main

sys.exit(main())
