"""`python -m kameng_api.cli`, for where the console script is not installed."""

from kameng_api.cli import main

main()
