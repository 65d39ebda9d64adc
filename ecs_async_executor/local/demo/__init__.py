"""
The demo: a real Airflow runs DAGs on a local ECS or Batch, and every outcome is checked.

Starts processes and looks at them from outside: through the AWS API of the local server and through Airflow's
database. Imports nothing of Airflow and nothing of this project. Only what runs in processes of its own imports
Airflow: the DAGs, and the program :mod:`drive`.
"""
