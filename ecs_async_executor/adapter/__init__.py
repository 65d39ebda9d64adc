"""The scheduler's thread, and everything that imports Airflow."""
