# list the recipes
default:
    @just --list

# serve on HOST and PORT (127.0.0.1:8000) with graceful shutdown; see the README for the settings
serve:
    python -m litestar_app

# serve with reload on every change of the code
dev:
    python -m litestar_app --reload

# run the tests; arguments go to pytest, such as `just test -k delete`
test *arguments:
    pytest -n auto --dist worksteal {{ arguments }}

# kill, starve and hang it, and see that nothing is lost; ten minutes
faults *arguments:
    pytest -n auto --dist worksteal -m faults tests/faults {{ arguments }}

# lint, format, types, tests: what must pass before a change lands
check: lint test

# lint, format and types only
lint:
    ruff check
    ruff format --check
    mypy

# mend what can be mended by a machine
fix:
    ruff check --fix
    ruff format

# compare with other stacks over HTTP, 13 minutes; `just bench --quick` takes 3 (see tests/benchmarks/README.md)
bench *arguments:
    uv run --group bench python -m tests.benchmarks.over_http {{ arguments }}

# what a request costs in process: run it before and after an optimisation
bench-in-process *arguments:
    uv run --group bench python -m tests.benchmarks.in_process {{ arguments }}
