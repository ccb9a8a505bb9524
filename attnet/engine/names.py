"""What the files of a run are called."""

# The end of the last epoch and of the one before; a position within an epoch; the best epoch's weights.
LAST, PREVIOUS, STEP, BEST = "last.pt", "previous.pt", "step.pt", "best.pt"
CONFIG, METRICS, RESULT, LOG = "config.json", "metrics.jsonl", "result.json", "log.txt"
OURS = (CONFIG, METRICS, RESULT, LAST, BEST, STEP, PREVIOUS)  # a folder that holds one of them is a run's
CLAIM = ".claimed"  # by a launcher, whose process it names, until its ranks have begun
LOCK = ".lock"  # held as long as somebody works there
OWNER = ".owner"  # names the process that holds the folder
PULSES = "pulse"  # a folder: a file a rank, where it stands
STOP = "stop"  # whoever makes it asks the run to save itself and end
