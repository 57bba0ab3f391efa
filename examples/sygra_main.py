"""SyGra's command line around a program of your own.

python examples/sygra_main.py --task examples.glaive_code_assistant --num_records=10
python examples/sygra_main.py -t mytask -n 1000 -dm True
"""

from callmeter.compat.sygra import get_metadata_collector, run

with run.from_args() as this:
    for n in range(this.num_records or 3):
        get_metadata_collector().record_model_request(
            "gpt-4o-mini", latency=0.1, prompt_tokens=n, completion_tokens=1
        )
        this.record()
    print(f"{this.num_records or 3} records")
