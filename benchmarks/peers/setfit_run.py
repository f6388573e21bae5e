"""Peer: SetFit on one draw.

Usage: setfit_run.py MODEL JOB OUT: JOB is a JSON file with texts, labels and test, OUT an npy file of classes.
"""

import json
import sys
from pathlib import Path

import numpy as np
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

model_path, job_path, out = sys.argv[1:]
job = json.loads(Path(job_path).read_text())
model = SetFitModel.from_pretrained(model_path)
# Its documented defaults, but for the number of pairs: the default takes every pair, which for 77 classes is hours.
arguments = TrainingArguments(
    batch_size=16, num_epochs=1, num_iterations=job["iterations"], seed=job["seed"], report_to="none"
)
trainer = Trainer(
    model=model, args=arguments, train_dataset=Dataset.from_dict({"text": job["texts"], "label": job["labels"]})
)
trainer.train()
np.save(out, np.asarray(model.predict(job["test"])))
