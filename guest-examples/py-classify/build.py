"""Makes py-classify.wasm of src/handler.py: what `componentize-py` does on the command line."""

import sys

try:
    from componentize_py import script
except ImportError:
    sys.exit("componentize-py is missing: pip install -r requirements.txt")

sys.argv = ["componentize-py", "--quiet", "--wit-path", "wit", "--world", "guest"]
sys.argv += ["componentize", "handler", "--python-path", "src", "--output", "py-classify.wasm"]
script()
