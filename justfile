# what `uv run` does not install by itself, since serving needs none of it
dev := env("UV", "uv") + " run --group dev"

# list the recipes
default:
    @just --list

# serve on HOST and PORT (127.0.0.1:8000) with graceful shutdown; docs/reference/settings.md lists the settings
serve:
    python -m litestar_app

# serve with reload on every change of the code
dev:
    python -m litestar_app --reload

# run the tests; arguments go to pytest, such as `just test -k delete`
test *arguments:
    {{ dev }} pytest -n auto --dist worksteal {{ arguments }}

# run the tests on the newest versions of all dependencies, if any is newer than its pin; arguments go to pytest
test-newest *arguments:
    .ci/versions.py test {{ arguments }}

# run the tests on Python 3.11, 3.12 and 3.13, each where it is installed
test-all:
    export PYENV_VERSION="$(pyenv versions --bare 2>/dev/null | paste -sd:)"; for version in 3.11 3.12 3.13; do ! {{ env("UV", "uv") }} python find -q --no-python-downloads "$version" || {{ dev }} --isolated --python "$version" pytest -n auto --dist worksteal || exit 1; done

# run the tests and see that they reach every branch of database/ and students/
coverage:
    {{ dev }} pytest -n auto --dist worksteal --cov

# kill, starve and freeze it, and see that nothing is lost; ten minutes (`-n 0 -m cluster -s`: a cluster, as long)
faults *arguments:
    {{ dev }} pytest -n auto --dist worksteal -m "faults and not cluster" tests/faults {{ arguments }}

# lint, format, types, tests, coverage, known vulnerabilities: what must pass before a change lands
check: lint coverage audit

# lint, format and types only
lint:
    {{ dev }} ruff check
    {{ dev }} ruff format --check
    {{ dev }} mypy

# look the versions of docs/deploy/requirements.txt up in PyPI's advisories
audit:
    .ci/audit

# run the tests on the newest versions, if any is newer, then pin these in pyproject.toml and, by their hashes, in docs/deploy/requirements.txt
lock:
    .ci/versions.py renew

# repair what a tool can repair
fix:
    {{ dev }} ruff check --fix
    {{ dev }} ruff format

# compare with other stacks over HTTP, 17 minutes; `just bench --quick` takes 4 (see tests/benchmarks/README.md)
bench *arguments:
    {{ dev }} --group bench python -m tests.benchmarks.over_http {{ arguments }}

# what a request costs in process: run it before and after an optimisation
bench-in-process *arguments:
    {{ dev }} --group bench python -m tests.benchmarks.in_process {{ arguments }}

# what a file to import may cost: the worst files of each format next to an ordinary one; a minute
bench-cost *arguments:
    python -m tests.benchmarks.cost {{ arguments }}

# pages of a million students next to those of a thousand, and exports; four minutes
bench-listing:
    {{ dev }} python -m tests.benchmarks.listing

# what a large import does to the reads and writes beside it; one minute
bench-import:
    {{ dev }} python -m tests.benchmarks.beside_import

# what one machine carries, with ten million students on both databases; an hour, 20 GB (--database, --students for less)
capacity *arguments:
    {{ dev }} python -m tests.benchmarks.capacity {{ arguments }}

# a million damaged requests, which must do no harm; 20 minutes (--requests 10000 for less, --mariadb for MariaDB)
fuzz *arguments:
    {{ dev }} python -m tests.fuzz {{ arguments }}

# three Galera nodes, two services and haproxy on PORT (8000), to kill and freeze nodes at a prompt
cluster:
    {{ dev }} python -m tests.cluster
