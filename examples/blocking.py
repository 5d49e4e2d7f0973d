"""The blocking client: a pool of sandboxes for code that is not asynchronous."""

from sandpool import SandboxClient


def main() -> None:
    """Take two sandboxes of a pool, one after the other."""
    with SandboxClient() as client:
        pool = client.create_pool(image="host", memory_mb=256, warm_containers=2)
        for name in ("first", "second"):
            with client.create(pool_id=pool.pool_id) as sandbox:
                print(
                    name,
                    sandbox.run("sh", ["-c", "ls /sandbox; touch /sandbox/mine; echo ok"]).stdout,
                )
        client.delete_pool(pool.pool_id)


if __name__ == "__main__":
    main()
