# Works with GNU make 3.81 and later and any POSIX sh. The two scripts below are ordinary sh with $ written $$.

TARGETS := help run test test-all lab lint data clean
UNKNOWN := $(filter-out $(TARGETS),$(MAKECMDGOALS))
PY := .venv/bin/python
NOTEBOOK := notebooks/train_1p.ipynb

.PHONY: $(TARGETS) $(UNKNOWN)

help: ## list the targets (also: make alone)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo 'Each sets up what it needs in .venv first. ARGS="..." goes to the command, for example'
	@echo '    make run ARGS="-p model attention92 -p data_path data/cifar-10-batches-py"'
	@echo 'PYTHON=/path/to/python chooses the Python (3.10 or newer) that .venv is made with.'

run: ## train from notebooks/train_1p.ipynb, then print the result (ARGS: papermill options)
	@sh -c "$$SETUP" setup
	@exec sh -c "$$RUN" run  # a shell between would end at Ctrl-C, and make with it, before the run has saved itself

test: ## run the tests that take minutes (ARGS: pytest options)
	@sh -c "$$SETUP" setup test
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow" $(ARGS)

test-all: ## run all tests, those with many processes too (ARGS: pytest options)
	@sh -c "$$SETUP" setup test
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lab: ## open JupyterLab on notebooks/start.ipynb (ARGS: jupyter lab options)
	@sh -c "$$SETUP" setup
	@$(PY) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/start.ipynb $(ARGS)

lint: ## check style with ruff
	@sh -c "$$SETUP" setup test
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

data: ## download CIFAR-10 into data/ (ARGS: options of attnet download)
	@sh -c "$$SETUP" setup
	@$(PY) -m attnet download $(ARGS)

clean: ## remove .venv and caches; runs/ and data/ stay
	@rm -rf .venv build dist attnet.egg-info .pytest_cache .ruff_cache .ipynb_checkpoints
	@find attnet notebooks tests -type d '(' -name __pycache__ -o -name .ipynb_checkpoints ')' -prune \
		-exec rm -rf '{}' +

ifneq ($(UNKNOWN),)  # a rule, not .DEFAULT, which would not see `make tests` because of the folder
$(UNKNOWN):
	@echo "There is no target '$@'; the targets are: $(TARGETS)." >&2; exit 2
endif


# ---- the environment: `setup` for the default dependencies, `setup test` for the test tools as well ----
# .venv/ready and .venv/ready-test hold what they were made for: this folder, pyproject.toml, constraints.txt. They are
# written last, so an interrupted set-up is taken up again, and an unchanged one asks nothing of pip.
define SETUP
set -uf
extra=$${1:-}
say() { printf '%s\n' "$$*" >&2; }
fail() { say "$$*"; exit 1; }
wanted=$$(pwd; cat pyproject.toml constraints.txt)
differs() { [ -f "$$1" ] && [ "$$(cat "$$1")" != "$$2" ]; }
foreign() {  # moved or copied here, or made with another Python than is asked for now
    differs .venv/place "$$(pwd)" || { [ -n "$${PYTHON:-}" ] && differs .venv/made-with "$$PYTHON"; }
}
is_ready() { [ -f "$$1" ] && ! differs "$$1" "$$wanted" && ! foreign && .venv/bin/python -c '' 2>/dev/null; }

if is_ready .venv/ready-test; then exit 0; fi
if [ -z "$$extra" ] && is_ready .venv/ready; then exit 0; fi

# A .venv is kept if it is not foreign, its Python is new enough and its pip starts.
check='import sys
sys.version_info >= (3, 10) or sys.exit(10)
from importlib.util import find_spec
find_spec("venv") and find_spec("ensurepip") or sys.exit(11)'
found=
if foreign || ! { .venv/bin/python -c "$$check" && .venv/bin/python -m pip --version; } >/dev/null 2>&1; then
    if [ -n "$${PYTHON:-}" ]; then set -- "$$PYTHON"
    else set -- python3.11 python3.12 python3.13 python3.10 python3 python; fi
    tried=$$* old= bare=
    for candidate do  # run each: a name on PATH may be a shim with nothing behind it
        status=0; "$$candidate" -c "$$check" >/dev/null 2>&1 || status=$$?
        case $$status in
            0) found=$$candidate; break ;;
            10) old=$${old:-$$candidate is $$("$$candidate" -V 2>&1)} ;;
            11) bare=$${bare:-$$candidate} ;;
        esac
    done
    hint="or name another with PYTHON=/path/to/python3"
    if [ -n "$$found" ]; then :
    elif [ -n "$$bare" ]; then
        fail "$$bare cannot make virtual environments (no venv or ensurepip module):" \
            "on Debian and Ubuntu run 'apt install python3-venv', $$hint."
    elif [ -n "$$old" ]; then
        fail "attnet needs Python 3.10 or newer, but $$old: install a newer one, $$hint."
    else
        fail "No working Python 3.10 or newer was found (tried: $$tried): install one, $$hint."
    fi
fi

started=$$(date +%s)
say "Setting up .venv$${extra:+ for tests}$${found:+ with $$found} (first time: some minutes) ..."
if [ -n "$$found" ]; then
    rm -rf .venv 2>/dev/null; mkdir .venv 2>/dev/null || fail "Cannot write the folder .venv in $$(pwd)."
    "$$found" -m venv .venv >.venv/setup.log 2>&1 ||
        fail "$$found could not make the virtual environment .venv: see .venv/setup.log."
    pwd >.venv/place
    printf '%s\n' "$$found" >.venv/made-with
fi
target=.$${extra:+[$$extra]}
: >.venv/setup.log
for packages in "pip>=22" "-e $$target"; do  # older pips cannot install a pyproject.toml editable
    .venv/bin/python -m pip install --disable-pip-version-check --no-input -c constraints.txt $$packages >>.venv/setup.log 2>&1 && continue
    if grep -qiE 'connection broken|failed to establish|name resolution|max retries|timed out' .venv/setup.log; then
        reason="the package index could not be reached (no network?)"
    else
        reason=$$(sed -n 's/^ *ERROR: *//p' .venv/setup.log | tail -n 1)
        if grep -q 'from versions: none' .venv/setup.log; then
            reason="$$reason (no network, or nothing there for this Python: PYTHON=/path/to/python3 names another)"
        fi
    fi
    fail "Set-up stopped after $$(($$(date +%s) - started)) s at 'pip install $$packages':" \
        "$${reason:-pip failed}. The log is .venv/setup.log; the next make goes on from here."
done
printf '%s\n' "$$wanted" >.venv/ready$${extra:+-$$extra}
say "Ready after $$(($$(date +%s) - started)) s."
endef
export SETUP


# ---- the run: execute the notebook, say where it is and how it went ----
define RUN
set -u
say() { printf '%s\n' "$$*" >&2; }
out=runs/train_1p/train_1p.ipynb log=runs/train_1p/papermill.log
mkdir -p runs/train_1p || exit 1

if [ -e "$$out" ]; then  # keep the notebook of an earlier run under a number
    n=1; while [ -e "$${out%.ipynb}.$$n.ipynb" ]; do n=$$((n + 1)); done
    mv "$$out" "$${out%.ipynb}.$$n.ipynb"
fi

trap : INT  # on Ctrl-C wait until the run has saved itself, and papermill the notebook
if $(PY) -m papermill --engine attnet $(NOTEBOOK) "$$out" -k python3 --no-progress-bar --log-level WARNING --stdout-file - \
    $(ARGS) 2>"$$log"
then say "Executed notebook: $$out"
else
    [ ! -e "$$out" ] || say "The notebook as far as it went: $$out (papermill's messages: $$log)"
    why=$$(grep . "$$log" | tail -n 1)
    say "The run stopped: $$why"
    saved=$$(printf '%s\n' "$$why" | sed -n 's/.*Go on.* with resume="\([^"]*\)".*/\1/p')
    [ -z "$$saved" ] || say "To go on: make run ARGS=\"-p resume '$$saved'\""
    exit 1
fi
exec $(PY) -m attnet report --newest runs
endef
export RUN
