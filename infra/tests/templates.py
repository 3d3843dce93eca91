"""Loads the templates: as written, and the pipeline's as the SAM transform turns it into plain CloudFormation."""

import copy
import functools
import pathlib

import yaml

INFRA = pathlib.Path(__file__).resolve().parent.parent
RUNBOOK = INFRA.parent / "docs" / "runbook.md"


class _Loader(yaml.SafeLoader):
    """Understands the short forms (`!Ref`, `!GetAtt`, ...)."""


def _short_form(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix in ("Ref", "Condition"):
        return {suffix: value}
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


class Templates:
    """Both templates, their text and the runbook. Rules read it; mutations change a copy of it."""

    def __init__(self, pipeline_text, consumer_text, runbook):
        self.pipeline_text = pipeline_text
        self.consumer_text = consumer_text
        self.runbook = runbook
        self.pipeline = yaml.load(pipeline_text, _Loader)
        self.consumer = yaml.load(consumer_text, _Loader)

    @classmethod
    def load(cls):
        return cls(
            (INFRA / "pipeline.yaml").read_text(),
            (INFRA / "consumer.yaml").read_text(),
            RUNBOOK.read_text(),
        )

    def copy(self):
        return copy.deepcopy(self)

    def both(self):
        return {"pipeline.yaml": self.pipeline, "consumer.yaml": self.consumer}

    def of_type(self, kind):
        """(logical id, resource) of that type in both templates."""
        return [
            (name, resource)
            for template in self.both().values()
            for name, resource in template["Resources"].items()
            if resource["Type"] == kind
        ]

    def resource(self, name):
        for template in self.both().values():
            if name in template["Resources"]:
                return template["Resources"][name]
        raise AssertionError(f"no resource {name}")

    def translated(self):
        """The pipeline's resources after the SAM transform, which runs on this machine."""
        return translate(self.pipeline)


def translate(template):
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    source = copy.deepcopy(template)
    # Deploying uploads the zip and puts its address here; the transform insists on one.
    source["Resources"]["Router"]["Properties"]["CodeUri"] = "s3://bucket/key"
    defaults = {name: p["Default"] for name, p in source["Parameters"].items() if "Default" in p}
    session = _session()
    output = Translator({}, Parser(), boto_session=session).translate(source, defaults)
    return output["Resources"]


@functools.cache
def _session():
    import boto3

    # Only the region and the partition are read from it.
    return boto3.Session(region_name="eu-central-1")
