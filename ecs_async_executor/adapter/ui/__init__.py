"""What people see of the executors in Airflow's UI: links, a tab of task instances, and a page of the menu."""
