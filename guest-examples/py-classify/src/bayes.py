"""A naive Bayes classifier. Knows nothing of messages."""

import json
import math
import re
from collections import Counter


def words(text):
    return re.findall(r"\w+", text.lower())


class Model:
    """How often each word came with each label."""

    def __init__(self, labels):
        self.labels = labels

    @classmethod
    def from_bytes(cls, kept):
        labels = json.loads(kept) if kept else {}
        return cls({label: Counter(counts) for label, counts in labels.items()})

    def to_bytes(self):
        return json.dumps(self.labels, ensure_ascii=False, sort_keys=True).encode()

    def learn(self, label, text):
        # The empty word counts the texts.
        self.labels.setdefault(label, Counter()).update(["", *text])

    def classify(self, text):
        """The likeliest label; of equals the first by name."""
        texts = sum(counts[""] for counts in self.labels.values())
        known = len({word for counts in self.labels.values() for word in counts})

        def likelihood(label):
            counts = self.labels[label]
            total = counts.total() - counts[""]
            # A word that never came with it is unlikely, not impossible.
            parts = (math.log((counts[word] + 1) / (total + known)) for word in text)
            return math.log(counts[""] / texts) + sum(parts)

        return max(sorted(self.labels), key=likelihood)
