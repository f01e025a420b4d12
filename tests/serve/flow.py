"""The sample flow of Prefect's documentation, unchanged, and what it leaves behind."""
from datetime import date, timedelta

import prefect
from prefect import Flow, Parameter, task
from prefect.backend import get_key_value, set_key_value

LAST_EXECUTED_KEY = "my-flow-last-executed"


@task
def get_last_execution_date():
    last_executed = get_key_value(LAST_EXECUTED_KEY)
    return date.fromisoformat(last_executed)


@task
def run_etl(start_date):
    days = (date.today() - start_date).days
    prefect.context.get("logger").info("loading %s days", days)
    return days


@task
def set_last_execution_date(days):
    set_key_value(key=LAST_EXECUTED_KEY, value=date.today().isoformat())


with Flow("test") as flow:
    start_date = get_last_execution_date()
    days = run_etl(start_date)
    set_last_execution_date(days)

set_key_value(LAST_EXECUTED_KEY, (date.today() - timedelta(days=3)).isoformat())
state = flow.run()
assert state.is_successful(), state
assert state.result[days].result == 3
assert get_key_value(LAST_EXECUTED_KEY) == date.today().isoformat()
print("passed")
