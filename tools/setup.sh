#!/bin/sh
# Create the virtual environment; say in one sentence what is missing.
#     sh tools/setup.sh PYTHON VENV [REQUIREMENTS]
python=$1 venv=$2 requirements=${3:-requirements.txt}

stop() {
    echo "setup: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    stop "no '$python' here: install Python 3.11 or newer, or name one with 'make PYTHON=/path/to/python3 ...'."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    stop "'$python' is $("$python" -V 2>&1): install Python 3.11 or newer, or name one with 'make PYTHON=/path/to/python3.11 ...'."
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    stop "'$python' has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)."

[ ! -L "$venv" ] ||
    stop "'$venv' is a link to another folder, which would be emptied: remove the link first."
log=$venv/setup.log
echo "Creating $venv with $("$python" -V 2>&1) ..."
"$python" -m venv --clear "$venv" >/dev/null 2>&1 ||
    stop "cannot create the virtual environment in '$venv': check that this folder is writable and the disk is not full."
echo "Installing the packages of $requirements (a minute or two, 1 GB) ..."
total=$(grep -c '^[^ #].*==' "$requirements")
"$venv/bin/python" -m pip install --disable-pip-version-check -r "$requirements" >"$log" 2>&1 &
pip=$!
shown=
while kill -0 $pip 2>/dev/null; do
    found=$(grep -cE "\(from -r $requirements|^Ignoring " "$log")
    [ "$found" -lt "$total" ] || found="all $total found, installing"
    [ "$found" = "$shown" ] || echo "  $found"
    shown=$found
    sleep 3
done
wait $pip ||
    stop "the packages of $requirements could not be installed: check your network connection (details: $log)."
"$venv/bin/python" -m pip install --disable-pip-version-check --no-build-isolation --no-deps -e . >>"$log" 2>&1 ||
    stop "the package microgpt could not be installed (details: $log)."
touch "$venv/ready"
