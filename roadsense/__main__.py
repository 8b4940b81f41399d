"""``python -m roadsense`` is the command line."""

import sys

from roadsense.cli import main

sys.exit(main())
