"""Look-up functions of Spaces (`getSpacesBucket`, `getSpacesBucketObject` …), which need its keys and no token."""

from __future__ import annotations

import asyncio
import re
from email.utils import parsedate_to_datetime
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.digitalocean.lookups import Lookup, listing, needed
from engine.deploy.providers.digitalocean.resource_type import Cloud, TypeFailure
from engine.deploy.providers.digitalocean.spaces_api import REGIONS
from engine.deploy.providers.digitalocean.spaces_bucket import bucket_values

BUCKET_FIELDS: dict[str, type] = {"name": str, "urn": str, "region": str, "bucket_domain_name": str, "endpoint": str}
MOST_KEYS = 1000
_TEXT_TYPES = re.compile(r"text/.+|application/json")


def functions() -> dict[str, Lookup]:
    """Pulumi token → function."""
    named: dict[str, Lookup] = {
        "getSpacesBucket": get_spaces_bucket,
        "getSpacesBuckets": get_spaces_buckets,
        "getSpacesBucketObject": get_spaces_bucket_object,
        "getSpacesBucketObjects": get_spaces_bucket_objects,
    }
    return {f"digitalocean:index/{name}:{name}": function for name, function in named.items()}


def _region(args: PropertyMap) -> str:
    region = needed(args, "region")
    if region.lower() not in REGIONS:
        raise TypeFailure(f"region {region!r} must be one of {', '.join(REGIONS)}")
    return region


async def get_spaces_bucket(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    name, region = needed(args, "name"), _region(args)
    if await cloud.spaces(region).find("HEAD", name) is None:
        raise TypeFailure(f"Spaces Bucket ({name}) not found")
    values = bucket_values(name, region)
    return {"id": name, "urn": values.pop("bucketUrn"), **values}


async def get_spaces_buckets(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    answers = await asyncio.gather(*(cloud.spaces(region).call("GET") for region in REGIONS))
    found = []
    for region, answer in zip(REGIONS, answers, strict=True):
        for bucket in answer.tree().iter("Bucket"):
            values = bucket_values(bucket.findtext("Name") or "", region)
            found.append(
                {
                    "name": values["name"],
                    "urn": values["bucketUrn"],
                    "region": region,
                    "bucket_domain_name": values["bucketDomainName"],
                    "endpoint": values["endpoint"],
                }
            )
    return listing("buckets", BUCKET_FIELDS, found, args)


async def get_spaces_bucket_object(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    bucket, key, region = needed(args, "bucket"), needed(args, "key"), _region(args)
    version = args.get("versionId")
    more: dict[str, Any] = {"query": {"versionId": version}} if version else {}
    more |= {"headers": {"range": args["range"]}} if args.get("range") else {}
    spaces = cloud.spaces(region)
    answer = await spaces.find("HEAD", bucket, key, **more)
    if answer is None:
        raise TypeFailure(f"Failed getting S3 object: NotFound Bucket: {bucket!r} Object: {key!r}")
    headers = answer.headers
    content_type = headers.get("content-type", "")
    body = None
    if _TEXT_TYPES.fullmatch(content_type):
        body = (await spaces.call("GET", bucket, key, **more)).body.decode("utf-8", "replace")
    modified = parsedate_to_datetime(headers["last-modified"])
    return {
        "id": f"{bucket}/{key}" + (f"@{version}" if version else ""),
        "bucket": bucket,
        "key": key,
        "region": region,
        "range": args.get("range"),
        "body": body,
        "cacheControl": headers.get("cache-control") or "",
        "contentDisposition": headers.get("content-disposition") or "",
        "contentEncoding": headers.get("content-encoding") or "",
        "contentLanguage": headers.get("content-language") or "",
        "contentLength": int(headers.get("content-length") or 0),
        "contentType": content_type,
        "etag": headers.get("etag", "").strip('"'),
        "expiration": headers.get("x-amz-expiration") or "",
        "expires": headers.get("expires") or "",
        "lastModified": modified.strftime("%a, %d %b %Y %H:%M:%S UTC"),
        "metadata": {n.removeprefix("x-amz-meta-"): v for n, v in headers.items() if n.startswith("x-amz-meta-")},
        "versionId": headers.get("x-amz-version-id") or "",
        "websiteRedirectLocation": headers.get("x-amz-website-redirect-location") or "",
    }


async def get_spaces_bucket_objects(cloud: Cloud, args: PropertyMap) -> PropertyMap:
    bucket, region = needed(args, "bucket"), _region(args)
    most = int(args.get("maxKeys") or MOST_KEYS)
    given = {
        "prefix": args.get("prefix"),
        "delimiter": args.get("delimiter"),
        "encoding-type": args.get("encodingType"),
    }
    query = {name: str(value) for name, value in given.items() if value}
    keys: list[str] = []
    prefixes: list[str] = []
    owners: list[str] = []
    marker = ""
    while len(keys) < most:
        page = {**query, "max-keys": str(min(most - len(keys), MOST_KEYS)), **({"marker": marker} if marker else {})}
        answer = await cloud.spaces(region).find("GET", bucket, query=page)
        if answer is None:
            raise TypeFailure(f"error listing Spaces Bucket ({bucket}) Objects: NoSuchBucket")
        tree = answer.tree()
        prefixes += [p.findtext("Prefix") or "" for p in tree.findall("CommonPrefixes")]
        keys += [o.findtext("Key") or "" for o in tree.findall("Contents")]
        owners += [o.findtext("Owner/ID") or "" for o in tree.findall("Contents") if o.find("Owner") is not None]
        marker = tree.findtext("NextMarker") or (keys[-1] if keys else "")
        if tree.findtext("IsTruncated") != "true":
            break
    return {
        "id": f"{region}/{bucket}",
        "bucket": bucket,
        "region": region,
        "prefix": args.get("prefix"),
        "delimiter": args.get("delimiter"),
        "encodingType": args.get("encodingType"),
        "maxKeys": most,
        "keys": keys,
        "commonPrefixes": prefixes,
        "owners": owners,
    }
