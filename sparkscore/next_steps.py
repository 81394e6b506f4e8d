"""What to do after each error, by its code; docs/guides/errors.md says the same."""

from __future__ import annotations

from collections.abc import Mapping

NEXT_STEPS: Mapping[str, str] = {
    "USAGE": "Read the message; `sparkscore COMMAND --help` shows the options.",
    "CONFIG_INVALID": (
        "Correct the option, or the setting at the named file and line; `sparkscore config show "
        "--origin` shows all settings."
    ),
    "NAME_INVALID": "Write the name, URI or path in the form that the message shows.",
    "EXTRA_MISSING": (
        "Run the `pip install` line of the message; of a module that is the model's own, package "
        "it along."
    ),
    "JAVA_UNUSABLE": (
        "`pip install 'sparkscore[java]'`, or point JAVA_HOME to a Java 17 or newer; then "
        "`sparkscore doctor`."
    ),
    "SOURCE_INVALID": (
        "Check path or name, format, version, options, schema and filter of the source, or "
        "mend the file and line that the message names."
    ),
    "SOURCE_CHANGES": (
        "What is new in the source cannot be told, as the message says why: a batch job runs once "
        "without `--since-last`, a stream takes `skipChangeCommits=true` or `readChangeFeed=true`; "
        "see docs/guides/incremental.md and docs/guides/streams.md."
    ),
    "SOURCE_LOST": (
        "Rows were removed before they were read: look at the retention of the topic or table, and "
        "at the stream's backlog; of a topic, `--source-option failOnDataLoss=false` goes on with "
        "what is there."
    ),
    "ENGINE_UNFIT": (
        "`--engine files` cannot do this job, as the message says; take `auto` or `arrow`."
    ),
    "RESOURCE_DOES_NOT_EXIST": (
        "List what is there: `sparkscore runs list`, `experiments list`, `models list`."
    ),
    "RESOURCE_ALREADY_EXISTS": "Take another name, or use the record that is there.",
    "INVALID_STATE": (
        "The record is deleted, finished or not READY: restore it or take another. Of a replay: "
        "the scores of its run are not there; if its rows have none by now, run the job again."
    ),
    "STORE_SCHEMA": (
        "The database is of another release or product: run the migration the message names, "
        "or another `tracking.uri`."
    ),
    "DATA_INVALID": "Mend the rows that the message shows.",
    "KEY_INVALID": (
        "Filter null or repeated keys (`--where`), or name other key columns; a stream that runs "
        "needs a new checkpoint for that, see docs/guides/streams.md."
    ),
    "ROWS_INVALID": "Mend the rows, or set them aside with `--on-invalid quarantine`.",
    "REJECTS_OVER_BUDGET": (
        "Nothing was committed. Mend model or rows, as the counted reasons say, or admit more with "
        "`--max-rejects` or `--max-partition-rejects`."
    ),
    "CHECK_FAILED": (
        "Nothing was published: look at the named files, then mend source or model, or "
        "publish by `--accept-checks`; see docs/guides/checks.md."
    ),
    "MODEL_UNUSABLE": "Register or choose another version.",
    "PACKAGE_INVALID": "The package lacks a file or one does not parse: save the model again.",
    "PACKAGE_DIGEST": "Bytes were changed or damaged: copy or register the package again.",
    "FLAVOR_UNKNOWN": (
        "Install the plug-in that brings the flavor, or save the model with a known one."
    ),
    "PACKAGE_UNSIGNED": (
        "`trust.require_signature` is set: have the package signed (`sparkscore models sign`)"
        " by a key of `trust.signing_keys`."
    ),
    "PACKAGE_UNTRUSTED": (
        "Decide whether you trust its maker; then `--trust TYPE` or `--trust-code`."
    ),
    "MODEL_NOT_FOUND": "`sparkscore models list`; check name, version and alias.",
    "SIGNATURE_MISMATCH": (
        "Map names with `--column MODEL=SOURCE`, cast in a view, or register a fitting "
        "version; `sparkscore score plan` shows the difference."
    ),
    "PREDICTION_FAILED": (
        "The model raised or answered wrongly: try it on the named rows with "
        "`sparkscore.load_model`, or set such rows aside with `--on-invalid quarantine`."
    ),
    "MODEL_TOO_LARGE": (
        "The model, or a single row of it, does not fit: more memory for each Python worker, "
        "or fewer slots a node."
    ),
    "BATCH_DEADLINE": (
        "The model hung, or is slow: look at the stack in the message; smaller batches "
        "(`scoring.max_rows_per_batch`), or more time (`scoring.batch_deadline_s`)."
    ),
    "WORKER_CRASHED": (
        "The model ended its Python worker at each try, by a crash in native code, `os._exit`"
        " or memory that ran out: try it on the named rows; give workers more memory, or "
        "register a mended version."
    ),
    "ENVIRONMENT_UNUSABLE": (
        "The message has uv's or pip's last words: correct the package's `requirements.txt` "
        "or `python_env.yaml`. On a cluster, give the nodes the base Python of the driver at "
        "the same place."
    ),
    "ENVIRONMENT_MISMATCH": (
        "Install what the lines name on the workers, score with `--env-manager virtualenv`, "
        "or set `scoring.environment_check=warn`."
    ),
    "NOT_CERTIFIED": (
        "Look at `certificate.json` of the run: it names the way of scoring and the first row"
        " that differ."
    ),
    "NOT_CONVERTED": (
        "Keep the model as it is; or, if differences of the size that is named do not matter,"
        " say so by `--tolerance`."
    ),
    "TARGET_INVALID": "Something else than a Delta table lies there: name another target.",
    "TARGET_SCHEMA": (
        "Alter the table, take another target, or make filter and `--replace-where` agree."
    ),
    "TARGET_UNWRITABLE": (
        "Give this user or key the right to write there, create the bucket, or take another target."
    ),
    "RUN_KEY_CONFLICT": (
        "The key was used with other inputs: a new `--run-key` to score again, or the former "
        "inputs to repeat."
    ),
    "OUTLET_INVALID": (
        "The place named by `--publish` does not take these rows: mend table, topic or "
        "rights as the message says, or name another. What was scored is in the score "
        "table, and is published when the stream goes on."
    ),
    "CHECKPOINT_INVALID": (
        "The checkpoint of a stream is damaged or cannot be written: put the named file back,"
        " or give the right to write there; else `--start-over` with an empty folder."
    ),
    "CHECKPOINT_FOREIGN": (
        "The checkpoint is another stream's, another program's, or a copy: name the stream's "
        "own; `--moved-checkpoint` if it was moved."
    ),
    "CHECKPOINT_LOST": (
        "The target knows an earlier stream of the job: name its checkpoint, or say "
        "`--start-over` to score all rows again."
    ),
    "CHECKPOINT_STALE": (
        "Checkpoint or target was put back to an earlier state: put the newest back, or "
        "`--start-over` with an empty folder."
    ),
    "TEMPORARY": "Run the same command again.",
    "OUTLET_AWAY": (
        "The place named by `--publish` did not answer: look whether it runs and can be "
        "reached, then run the same command again; nothing is lost."
    ),
    "STORE_UNAVAILABLE": "The tracking, registry, artifact or object store did not answer.",
    "SOURCE_AWAY": (
        "The brokers of the source did not answer, or another process of the stream reads from "
        "them; look which, and run again."
    ),
    "SCHEMA_CHANGED": (
        "The stream was planned with the columns that its source had: run the same command again."
    ),
    "JARS_UNAVAILABLE": (
        "`sparkscore setup` where a Maven repository can be reached, or the setting `spark.jars`."
    ),
    "STAGED_FILES_GONE": (
        "Somebody ran `score clean` on a job that was stopped for long: run the same command again."
    ),
    "PORT_TAKEN": "Free the port, or ask for another.",
    "SPARK_STOPPED": "Spark's driver was stopped or killed; if often, look at its memory.",
    "TARGET_BUSY": "Other writers won each try; run again, or spread the jobs over time.",
    "INTERNAL": "Report it with the output of `--debug`.",
    "BOOKS_UNBALANCED": (
        "Rows read are not rows scored + rejected. The table has the commit; check it before "
        "use, and report it."
    ),
    "SPARK_FAILED": (
        "Read the message and Spark's log; run the same command once more, and report it with"
        " `--debug` if it fails again."
    ),
}
