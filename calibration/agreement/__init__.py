"""How far two models agree in detection terms: maps, scores, verdicts, and how well they tell good from defective."""
