"""Whether this container's process answers at HEALTH_URL: exit status 0 or 1, for HEALTHCHECK."""

import os
import sys
import urllib.request

try:
    with urllib.request.urlopen(os.environ["HEALTH_URL"], timeout=4) as answer:  # noqa: S310  set by the image and the compose file
        sys.exit(answer.status != 200)
except OSError as trouble:
    sys.exit(f"{os.environ['HEALTH_URL']}: {trouble}")
