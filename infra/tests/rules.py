"""What must hold for the templates beyond what linters know. Each rule takes `Templates` and asserts."""

import json
import re

import yaml

INBOUND = "inbound"
OUTBOUND = ["orders", "payments", "clicks", "default"]  # the demo's and the sample route table's
RULES = {}


def rule(function):
    RULES[function.__name__] = function
    return function


def walk(node):
    """Every dict inside, itself included."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def as_list(value):
    return value if isinstance(value, list) else [value]


def mentions(node, intrinsic):
    return intrinsic in list(walk(node))


def streams(t):
    return {r["Properties"]["Name"]: (name, r) for name, r in t.of_type("AWS::Kinesis::Stream")}


def alarms(t):
    return t.of_type("AWS::CloudWatch::Alarm")


def slug(alarm):
    """The runbook section that an alarm's description names."""
    description = alarm["Properties"]["AlarmDescription"]
    text = description["Fn::Sub"] if isinstance(description, dict) else description
    found = re.search(r"Runbook, ([a-z-]+)\.\s*$", text)
    assert found, f"the description names no runbook section: {text!r}"
    return found.group(1)


# Streams ---------------------------------------------------------------------------------------------


@rule
def streams_are_the_demos(t):
    assert sorted(streams(t)) == sorted([INBOUND, *OUTBOUND])


@rule
def consumers_may_read_every_outbound_stream(t):
    assert t.consumer["Parameters"]["Stream"]["AllowedValues"] == OUTBOUND


@rule
def streams_are_encrypted(t):
    for name, (_, stream) in streams(t).items():
        encryption = stream["Properties"]["StreamEncryption"]
        assert encryption["EncryptionType"] == "KMS", name
        assert mentions(encryption["KeyId"], {"Fn::GetAtt": ["Key", "Arn"]}), name
        assert mentions(encryption["KeyId"], {"Ref": "StreamKey"}), name


@rule
def streams_carry_the_lane_count(t):
    for name, (_, stream) in streams(t).items():
        tags = {tag["Key"]: tag["Value"] for tag in stream["Properties"].get("Tags", [])}
        assert tags.get("headworks:lanes") == {"Ref": "Lanes"}, name
    lanes = t.pipeline["Parameters"]["Lanes"]
    assert lanes["MinValue"] == 1 and lanes["MaxValue"] == 256, "the bounds of LaneCount"


@rule
def streams_follow_the_parameters(t):
    for name, (_, stream) in streams(t).items():
        properties = stream["Properties"]
        shards = "InboundShards" if name == INBOUND else "OutboundShards"
        assert properties["StreamModeDetails"] == {"StreamMode": {"Ref": "CapacityMode"}}, name
        assert properties["ShardCount"] == {"Fn::If": ["Provisioned", {"Ref": shards}, {"Ref": "AWS::NoValue"}]}, name
        assert properties["RetentionPeriodHours"] == {"Ref": "RetentionHours"}, name


@rule
def what_holds_data_outlives_the_stack(t):
    keep = {"AWS::Kinesis::Stream", "AWS::S3::Bucket", "AWS::KMS::Key"}
    for template in t.both().values():
        for name, resource in template["Resources"].items():
            if resource["Type"] in keep or name == "LeaseTable":
                assert resource.get("DeletionPolicy") == "Retain", name
                assert resource.get("UpdateReplacePolicy") == "Retain", name


# Router ----------------------------------------------------------------------------------------------


def mapping(t):
    return t.translated()["RouterInbound"]["Properties"]


@rule
def partial_batch_responses_are_on(t):
    assert mapping(t)["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@rule
def nothing_is_given_up_before_the_retention_ends(t):
    assert mapping(t)["MaximumRetryAttempts"] == -1
    assert mapping(t)["MaximumRecordAgeInSeconds"] == -1


@rule
def batches_are_neither_bisected_nor_windowed(t):
    assert mapping(t)["BisectBatchOnFunctionError"] is False
    assert "TumblingWindowInSeconds" not in mapping(t)


@rule
def parallelization_is_the_parameter(t):
    # The retry attempts and the parallelization factor are easily swapped.
    assert mapping(t)["ParallelizationFactor"] == {"Ref": "RouterParallelization"}
    factor = t.pipeline["Parameters"]["RouterParallelization"]
    assert (factor["MinValue"], factor["MaxValue"]) == (1, 10)
    assert factor["Default"] <= t.pipeline["Parameters"]["Lanes"]["Default"], "more than lanes is of no use"


@rule
def reading_starts_at_the_oldest_record(t):
    assert mapping(t)["StartingPosition"] == "TRIM_HORIZON"
    assert mapping(t)["EventSourceArn"] == {"Fn::GetAtt": ["InboundStream", "Arn"]}


@rule
def what_the_mapping_gives_up_goes_to_s3(t):
    event = t.resource("Router")["Properties"]["Events"]["Inbound"]["Properties"]
    on_failure = event["DestinationConfig"]["OnFailure"]
    assert on_failure["Type"] == "S3"
    assert on_failure["Destination"] == {"Fn::GetAtt": ["DeadLetterBucket", "Arn"]}
    assert mapping(t)["DestinationConfig"]["OnFailure"]["Destination"] == on_failure["Destination"]
    assert event["MetricsConfig"] == {"Metrics": ["EventCount"]}, "else its alarm has no metric"


@rule
def the_router_is_the_bootstrap_of_the_zip(t):
    source = t.resource("Router")["Properties"]
    assert source["CodeUri"] == "../target/lambda/router.zip"
    function = t.translated()["Router"]["Properties"]
    assert function["Runtime"] == "provided.al2023"
    assert function["Handler"] == "bootstrap"
    assert function["MemorySize"] == {"Ref": "RouterMemory"}
    assert t.pipeline["Parameters"]["RouterMemory"]["Default"] == 128
    assert set(t.pipeline["Parameters"]["RouterArchitecture"]["AllowedValues"]) == {"x86_64", "arm64"}
    assert function["Role"] == {"Fn::GetAtt": ["RouterRole", "Arn"]}, "SAM would write a role of its own"


@rule
def the_router_is_told_what_it_reads(t):
    variables = t.resource("Router")["Properties"]["Environment"]["Variables"]
    assert variables["HEADWORKS_ROUTES"] == {"Ref": "RouteTable"}
    assert t.pipeline["Parameters"]["RouteTable"]["Default"] == "routes.toml"
    assert variables["HEADWORKS_DEAD_LETTER_BUCKET"] == {"Ref": "DeadLetterBucket"}
    assert mentions(variables["OTEL_EXPORTER_OTLP_ENDPOINT"], {"Ref": "OtlpEndpoint"})
    assert variables["HEADWORKS_LOG_FORMAT"] == "json", "the function's log format is JSON"
    ours = [v for v in variables if v.startswith("HEADWORKS_")]
    assert variables["HEADWORKS_PROGRESS_TABLE"] == {"Ref": "RouterProgress"}
    assert len(ours) + 1 == len(variables) == 5, "a variable that the router does not know"


@rule
def the_router_may_keep_its_progress(t):
    table = t.resource("RouterProgress")["Properties"]
    assert table["KeySchema"] == [{"AttributeName": "lane", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "lane", "AttributeType": "S"}]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    allowed = {
        action
        for name, statement in statements(t)
        if name == "RouterRole" and statement["Resource"] == {"Fn::GetAtt": ["RouterProgress", "Arn"]}
        for action in as_list(statement["Action"])
    }
    assert allowed == {"dynamodb:BatchGetItem", "dynamodb:BatchWriteItem"}, allowed


# Dead letters ----------------------------------------------------------------------------------------


@rule
def dead_letters_are_safe(t):
    bucket = t.resource("DeadLetterBucket")["Properties"]
    [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    block = bucket["PublicAccessBlockConfiguration"]
    for setting in ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"):
        assert block[setting] is True, setting
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    lifecycle = bucket["LifecycleConfiguration"]["Rules"]
    assert any(r.get("ExpirationInDays") == {"Ref": "DeadLetterDays"} and r["Status"] == "Enabled" for r in lifecycle)
    statements = t.resource("DeadLetterBucketPolicy")["Properties"]["PolicyDocument"]["Statement"]
    assert any(
        s["Effect"] == "Deny" and s.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}} for s in statements
    ), "plain HTTP is not refused"


# Tables ----------------------------------------------------------------------------------------------


@rule
def leases_have_the_kcls_layout(t):
    table = t.resource("LeaseTable")["Properties"]
    assert table["TableName"] == {"Ref": "Application"}
    assert table["KeySchema"] == [{"AttributeName": "leaseKey", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "leaseKey", "AttributeType": "S"}]
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


@rule
def heartbeats_have_a_table_of_their_own(t):
    table = t.resource("WorkerTable")["Properties"]
    assert table["KeySchema"] == [{"AttributeName": "worker", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "worker", "AttributeType": "S"}]
    assert table["TimeToLiveSpecification"]["Enabled"] is True
    assert table["TableName"] != t.resource("LeaseTable")["Properties"]["TableName"]


@rule
def tables_are_encrypted_and_on_demand(t):
    for name, table in t.of_type("AWS::DynamoDB::Table"):
        assert table["Properties"]["BillingMode"] == "PAY_PER_REQUEST", name
        assert table["Properties"]["SSESpecification"]["SSEEnabled"] is True, name


# Roles -----------------------------------------------------------------------------------------------


def statements(t):
    """(resource, statement) of every policy that allows something to a role."""
    for name, resource in [*t.of_type("AWS::IAM::Role"), *t.of_type("AWS::IAM::ManagedPolicy")]:
        properties = resource["Properties"]
        documents = [p["PolicyDocument"] for p in properties.get("Policies", [])]
        documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
        for document in documents:
            for node in walk(document):
                if "Effect" in node:
                    yield name, node


@rule
def no_role_may_do_everything(t):
    # The service knows no narrower resource for these.
    anywhere = {"kinesis:ListStreams"}
    for name, statement in statements(t):
        actions = as_list(statement["Action"])
        assert not [a for a in actions if "*" in a], f"{name}: {actions}"
        if "*" in as_list(statement["Resource"]):
            assert set(actions) <= anywhere, f"{name}: {actions} on every resource"


def writable(t, role):
    return {
        json.dumps(resource)
        for name, statement in statements(t)
        if name == role and "kinesis:PutRecords" in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def arns(t, names):
    return {json.dumps({"Fn::GetAtt": [streams(t)[name][0], "Arn"]}) for name in names}


@rule
def each_writer_writes_its_streams_only(t):
    assert writable(t, "RouterRole") == arns(t, OUTBOUND)
    assert writable(t, "GatewayRole") == arns(t, [INBOUND])
    assert writable(t, "ConsumerPolicy") == set()


@rule
def writers_may_read_the_lane_tag(t):
    for name, statement in statements(t):
        actions = as_list(statement["Action"])
        if "kinesis:PutRecords" in actions:
            assert {"kinesis:ListTagsForStream", "kinesis:ListShards"} <= set(actions), name


@rule
def the_router_may_store_dead_letters(t):
    allowed = [s for name, s in statements(t) if name == "RouterRole"]
    assert any("s3:PutObject" in as_list(s["Action"]) for s in allowed)
    assert any("s3:ListBucket" in as_list(s["Action"]) for s in allowed), "Lambda asks for it"
    assert any("kms:GenerateDataKey" in as_list(s["Action"]) for s in allowed), "the bucket is encrypted"


@rule
def the_key_rotates_and_only_the_account_holds_it(t):
    key = t.resource("Key")["Properties"]
    assert key["EnableKeyRotation"] is True
    for statement in key["KeyPolicy"]["Statement"]:
        assert statement["Principal"] == {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}


# Alarms ----------------------------------------------------------------------------------------------


@rule
def every_alarm_acts(t):
    ours = [{"Fn::If": ["CreateTopic", {"Ref": "AlarmTopic"}, {"Ref": "AlarmTopicArn"}]}]
    imported = [{"Fn::ImportValue": {"Fn::Sub": "${Pipeline}:alarms:arn"}}]
    assert alarms(t)
    for name, alarm in alarms(t):
        properties = alarm["Properties"]
        assert properties.get("AlarmActions") in (ours, imported), name
        assert properties.get("OKActions") in (ours, imported), name
        assert properties.get("ActionsEnabled", True) is True, name


@rule
def alarms_reach_somebody(t):
    [assertion] = t.pipeline["Rules"]["AlarmsReachSomebody"]["Assertions"]
    assert mentions(assertion, {"Ref": "AlarmTopicArn"}) and mentions(assertion, {"Ref": "AlarmEmail"})
    assert t.resource("AlarmSubscription")["Properties"]["Endpoint"] == {"Ref": "AlarmEmail"}
    assert "KmsMasterKeyId" not in t.resource("AlarmTopic")["Properties"], "the alarm on a broken key would be lost"


@rule
def the_first_alarms_are_there(t):
    watched = set()
    for _, alarm in alarms(t):
        for node in walk(alarm):
            if "MetricName" in node:
                watched.add((node["Namespace"], node["MetricName"]))
    assert watched >= {
        ("AWS/Lambda", "IteratorAge"),
        ("AWS/Lambda", "Errors"),
        ("AWS/Lambda", "Throttles"),
        ("AWS/Lambda", "DestinationDeliveryFailures"),
        ("AWS/Lambda", "OnFailureDestinationDeliveredEventCount"),
        ("AWS/S3", "PutRequests"),
        ("AWS/Kinesis", "WriteProvisionedThroughputExceeded"),
        ("AWS/Kinesis", "SubscribeToShardEvent.MillisBehindLatest"),
    }


@rule
def every_stream_has_a_throttle_alarm(t):
    watched = [
        json.dumps(alarm["Properties"]["Dimensions"])
        for _, alarm in alarms(t)
        if alarm["Properties"].get("MetricName") == "WriteProvisionedThroughputExceeded"
    ]
    expected = [json.dumps([{"Name": "StreamName", "Value": {"Ref": name}}]) for name, _ in streams(t).values()]
    assert sorted(watched) == sorted(expected)


@rule
def alarms_watch_things_that_exist(t):
    for template in t.both().values():
        known = {**template["Resources"], **template["Parameters"], "RouterInbound": None}
        for name, alarm in template["Resources"].items():
            if alarm["Type"] == "AWS::CloudWatch::Alarm":
                for node in walk(alarm["Properties"]):
                    for dimension in node.get("Dimensions", []):
                        value = dimension["Value"]
                        assert isinstance(value, str) or value["Ref"] in known, f"{name}: {value}"
    # The S3 metric exists only for a filter that the bucket defines.
    filters = [m["Id"] for m in t.resource("DeadLetterBucket")["Properties"]["MetricsConfigurations"]]
    assert {"Name": "FilterId", "Value": filters[0]} in t.resource("DeadLettersWritten")["Properties"]["Dimensions"]


@rule
def alarms_say_what_silence_means(t):
    for name, alarm in alarms(t):
        assert alarm["Properties"].get("TreatMissingData") in ("breaching", "notBreaching", "ignore"), name
    # A consumer without a subscription sends no metric at all.
    assert t.resource("ConsumerLag")["Properties"]["TreatMissingData"] == "breaching"


@rule
def alarms_and_runbook_name_each_other(t):
    sections = re.findall(r"^## ([a-z][a-z-]*)$", t.runbook, re.MULTILINE)
    assert len(sections) == len(set(sections))
    for name, alarm in alarms(t):
        assert slug(alarm) in alarm["Properties"]["AlarmName"]["Fn::Sub"], name
    assert {slug(alarm) for _, alarm in alarms(t)} == set(sections)


# Templates -------------------------------------------------------------------------------------------


@rule
def imports_are_exported(t):
    exports = {
        output["Export"]["Name"]["Fn::Sub"].replace("${AWS::StackName}", "${Pipeline}")
        for output in t.pipeline["Outputs"].values()
        if "Export" in output
    }
    imports = {node["Fn::ImportValue"]["Fn::Sub"] for node in walk(t.consumer) if "Fn::ImportValue" in node}
    assert imports
    for name in imports:
        for stream in OUTBOUND:
            assert name.replace("${Stream}", stream) in exports, name


@rule
def outputs_tell_everything(t):
    assert {
        *(f"{name.capitalize()}Stream{what}" for name in [INBOUND, *OUTBOUND] for what in ("Name", "Arn")),
        *("Region", "Lanes", "KeyArn", "DeadLetterBucketName", "RouterArn", "RouterMapping"),
        *("GatewayRoleArn", "AlarmTopicArn"),
    } <= set(t.pipeline["Outputs"])
    assert {
        *("Application", "StreamName", "FanOutArn", "LeaseTableName", "WorkerTableName", "ConsumerPolicyArn"),
    } <= set(t.consumer["Outputs"])


@rule
def no_yaml_aliases(t):
    # CloudFormation takes YAML without aliases and merges, which local tools resolve silently.
    for name, text in (("pipeline.yaml", t.pipeline_text), ("consumer.yaml", t.consumer_text)):
        for token in yaml.scan(text):
            assert not isinstance(token, yaml.AliasToken | yaml.AnchorToken), f"{name}:{token.start_mark.line + 1}"


@rule
def parameters_are_explained(t):
    for name, template in t.both().items():
        grouped = [
            p
            for group in template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
            for p in group["Parameters"]
        ]
        assert sorted(grouped) == sorted(template["Parameters"]), name
        for parameter, body in template["Parameters"].items():
            assert body.get("Description"), f"{name}: {parameter}"
