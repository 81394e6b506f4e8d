"""MLflow's own server over a folder, in MLflow's Python; tells its address on stdout.

Argument: the folder. It has no worker processes and no database, so that it is there in seconds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

folder = Path(sys.argv[1]).absolute()
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ["_MLFLOW_SERVER_FILE_STORE"] = str(folder / "mlruns")
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = str(folder / "mlartifacts")
os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"

from mlflow.server import app  # noqa: E402 - it reads these
from werkzeug.serving import make_server  # noqa: E402

server = make_server("127.0.0.1", 0, app, threaded=True)
sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
