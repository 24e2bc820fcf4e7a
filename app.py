"""The app: python app.py, or python app.py --model ViT-B-16-quickgelu:openai. This file only assembles and launches."""

import argparse
import os
import sys

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: nothing is sent anywhere


class Options(argparse.ArgumentParser):
    def error(self, message: str):
        """One sentence instead of the whole usage."""
        self.exit(2, f"app.py: {message}; see python app.py --help\n")


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Options(prog="app.py", description="See and try how words become masks.", allow_abbrev=False)
    parser.add_argument(
        "--model",
        default="tiny",
        help="tiny (built in), ARCH:TAG such as ViT-B-16-quickgelu:openai, ARCH:FILE, or ARCH:random (default: %(default)s)",
    )
    parser.add_argument(
        "--method",
        action="append",
        metavar="FILE.py",
        help="a method of your own beside the kit's: a Python file, it is code and it is run",
    )
    parser.add_argument("--weights", metavar="FILE", help="what python -m kit fit has learned (default: that of the kit)")
    parser.add_argument("--sam", metavar="NAME", help="a SAM that makes the masks, such as facebook/sam-vit-base (default: superpixels)")
    parser.add_argument("--device", help="cpu, cuda or mps (default: cuda where there is one, else cpu)")
    parser.add_argument("--host", help="address to listen on (default: GRADIO_SERVER_NAME, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port from 1 to 65535 (default: GRADIO_SERVER_PORT, else the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="a public link for a week, through gradio.live")
    chosen = parser.parse_args(arguments)
    if chosen.port is not None and not 1 <= chosen.port <= 65535:
        parser.error(f"expected a port from 1 to 65535, got {chosen.port}")
    return chosen


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    import torch  # after the options, because a typing mistake need not wait for it

    from kit.encode import Clip, ClipError
    from kit.methods import METHODS
    from kit.own import MethodError, method_named
    from kit.propose import ProposalError, loaded_sam
    from kit.ui import frame

    try:
        own = [method_named(file) for file in chosen.method or []]
        clip = Clip.load(chosen.model, device=chosen.device)
        if clip.is_tiny:
            torch.set_num_threads(1)  # its arrays are small: more threads wait for each other
        if chosen.sam:
            loaded_sam(chosen.sam, clip.device)  # now, so that a name that is none is said at once
        changes = {"proposals": chosen.sam} if chosen.sam else None
        demo, pages = frame.build(clip, METHODS | {method.name: method for method in own}, chosen.weights, changes)
        if chosen.weights:
            for sentence in {what for what in pages["Explore"].studio.learned.values() if isinstance(what, str)}:
                refused(sentence)  # the rest works
        demo.launch(server_name=chosen.host, server_port=chosen.port, share=chosen.share, **frame.LAUNCH)
    except (ClipError, MethodError, ProposalError, OSError) as error:
        sys.exit(refused(str(error)))


def refused(sentence: str) -> int:
    print(f"app.py: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
