"""The command line of ``twistd resumable`` and its environment, made into one frozen `Settings`.

The options themselves are in `resumable.config`. Flags win over the environment, that wins over the configuration file,
that wins over the defaults, and each error is reported in one line before anything starts.
Written after `twisted.python.usage`.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from attrs import frozen
from twisted import __version__ as twisted_version
from twisted.internet.endpoints import quoteStringArgument
from twisted.logger import Logger
from twisted.python import usage

from resumable import __version__
from resumable.auth.build import AccessSettings
from resumable.auth.secret import AccessProblem
from resumable.config import BY_FLAG, OPTIONS, Option, help_line
from resumable.config.access import ACCESS
from resumable.config.access_settings import access_settings
from resumable.config.file import CONFIG, BadConfig, ConfigFile, read_config
from resumable.config.help import full_help, short_help
from resumable.config.hooks import HOOKS
from resumable.config.option import (
    UnknownVariable,
    did_you_mean,
    mentioned_variables,
    nearest_name,
    of_a_service,
    unknown_variables,
)
from resumable.config.serving import PLACING
from resumable.hooks.settings import HookSettings, hook_settings
from resumable.http.cors import CrossOrigin, cross_origin_rules
from resumable.listening.endpoints import admin_endpoint, only_loopback, private_socket
from resumable.listening.run_directory import SOCKET
from resumable.masking import masked
from resumable.model.values import Network
from resumable.remotes import urls
from resumable.remotes.urls import BadRemote, RemoteSpec
from resumable.spool import Modes
from resumable.spool.objects.object_names import OWN
from resumable.spool.placed_files import PlaceSettings, place_settings


@frozen
class Settings:
    """The settings of the service; sizes are bytes, times are seconds.

    ``public_url`` is what clients see in place of ``base_path``. None: ``max_size``, ``max_lag``, ``max_lag_age`` and
    ``remote_attempts`` without a limit; ``expire_after``, ``reclaim_after`` and ``give_up_after`` never; ``public_url``
    taken from each request; no ``status_path``; ``catalog`` in SQLite; ``spool`` in ``upload_dir``; ``run_dir`` the
    first that can be used; as many ``workers`` as processors. Words that may be chosen are as in the table of options.
    """

    listen: tuple[str, ...]
    upload_dir: Path
    catalog: str | None
    spool: RemoteSpec | None
    scratch_size: int
    run_dir: Path | None
    workers: int | None
    modes: Modes
    base_path: str
    public_url: str | None
    max_size: int | None
    expire_after: float | None
    keep_partials: float
    final_timeout: float
    remember: float
    network_timeout: float
    min_rate: int
    shutdown_timeout: float
    trusted_proxies: tuple[Network, ...]
    reserve: int
    cors: CrossOrigin
    location: str
    page: str
    http2: bool
    h2c: bool
    writers: int
    direct_from: int | None
    digest: str
    disabled_extensions: tuple[str, ...]
    draft: bool
    interim: str
    min_append_size: int | None
    max_append_size: int | None
    download: bool
    download_inline: bool
    download_from_remote: str
    download_url_expires: float
    remotes: tuple[RemoteSpec, ...]
    part_size: int
    ack: str
    ack_timeout: float
    local: str
    reclaim_after: float | None
    max_lag: int | None
    max_lag_age: float | None
    terminate_remote: str
    remote_attempts: int | None
    give_up_after: float | None
    retry_delay: float
    retry_delay_max: float
    parts_per_upload: int
    parts_per_remote: int
    parts: int
    remote_timeout: float
    sweep: str
    check: bool
    status_path: str | None
    admin_listen: tuple[str, ...]
    admin_token_file: Path | None
    admin_on_public: bool
    ready_remotes: str
    log_format: str
    log_level: str
    access_log: str
    tls_client_ca: Path | None
    tls_client_optional: bool
    access: AccessSettings
    hooks: HookSettings
    placing: PlaceSettings


class Options(usage.Options):
    """The command line of ``twistd resumable``; `settings` is valid once it has been parsed."""

    longdesc = (
        "An upload server that never makes a person start over: tus 1.0 and the IETF draft for resumable uploads. All"
        " options have a default."
    )
    metavars: ClassVar[Mapping[str, str]] = {}
    """Kinds of the values of a subclass's own flags, for ``--help``."""
    optParameters = [[o.flag, None, None, help_line(o)] for o in OPTIONS if not o.is_switch and not o.separator]  # noqa: RUF012
    optFlags = [[o.flag, None, help_line(o)] for o in OPTIONS if o.is_switch]  # noqa: RUF012

    _log = Logger()

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._environ = environ
        self._repeated: dict[str, list[str]] = {}
        self._settings: Settings | None = None
        self.config = ConfigFile()
        self.arguments: tuple[str, ...] = ()
        self.docs.update({o.flag: help_line(o) for o in OPTIONS if o.separator})

    def repeat(self, flag: str, value: str) -> None:
        """The flag was given once more."""
        self._repeated.setdefault(flag, []).append(value)

    def opt_help(self) -> None:
        """Display the usual options, and exit."""
        self._help(short_help)

    def opt_help_all(self) -> None:
        """Display all options, and exit."""
        self._help(full_help)

    def _help(self, made: Callable[[str, str, Mapping[str, str], int], str]) -> None:
        own = {}
        for each in self.longOpt:
            flag = each.rstrip("=")
            if flag not in BY_FLAG:
                own[f"{flag} {self.metavars.get(flag, 'VALUE')}" if each != flag else flag] = self.docs[flag] or ""
        width = max(60, min(shutil.get_terminal_size((80, 24)).columns, 100))
        print(made(self.getSynopsis(), self.longdesc, own, width))
        sys.exit(0)

    def opt_version(self) -> None:
        """Display the versions of resumable, Twisted and Python, and exit."""
        print(f"resumable {__version__} (Twisted {twisted_version}, Python {platform.python_version()})")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """``arguments`` are those that were given."""
        try:
            self.arguments = tuple(sys.argv[1:] if options is None else options)
            self._check_flags(self.arguments)
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as problem:
            if self.parent is None:
                raise
            # twistd would print all of --help and, below it, the one line that matters.
            raise SystemExit(f"resumable: {masked(str(problem))}") from problem

    def _check_flags(self, arguments: Sequence[str]) -> None:
        """Refuse a flag's beginning as getopt would refuse any other word: the next release may have two like it."""
        rest, spools = iter(arguments), 0
        for each in rest:
            if not each.startswith("--") or each == "--":
                return
            name, equals, _ = each[2:].partition("=")
            if name not in self.longOpt and f"{name}=" not in self.longOpt:
                meant = nearest_name(name.lower(), (known.rstrip("=") for known in self.longOpt))
                hint = did_you_mean(meant and f"--{meant}")
                raise usage.UsageError(f"option --{name} not recognized{hint}")
            spools += name == "spool"
            if spools > 1:
                raise usage.UsageError("--spool is given twice: uploads are in one store; copies go to each --remote")
            if f"{name}=" in self.longOpt and not equals:
                next(rest, None)

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(f"unexpected argument {args[0]!r}: everything is set by flags, see --help")

    def postOptions(self) -> None:
        self.config = self._read_config()
        self._check_environment()
        found = {option.flag.replace("-", "_"): self._value(option) for option in OPTIONS if option != CONFIG}
        access, hooks, cors = self._access(found), self._hooks(found), self._cors(found)
        settings = Settings(
            listen=self._listen(found),
            modes=Modes(found.pop("file_mode"), found.pop("dir_mode")),
            trusted_proxies=found.pop("behind_proxy"),
            cors=cors,
            download=not found.pop("disable_download"),
            disabled_extensions=self._disabled_extensions(found),
            http2=not found.pop("disable_http2"),
            draft=self._draft(found),
            admin_listen=self._admin_listen(found.pop("admin_listen"), found["upload_dir"], found["catalog"]),
            spool=(spool := self._spool(found.pop("spool"))),
            remotes=self._remotes(found.pop("remote"), found.pop("overwrite"), spool),
            access=access,
            hooks=hooks,
            placing=self._placing(found),
            **found,
        )
        self._check_spool(settings)
        check_together(settings)
        self._settings = settings

    @property
    def unknown_variables(self) -> list[UnknownVariable]:
        """Variables that begin like ours and are none of ours, except those that the remotes' URLs name."""
        urls = [text for flag in ("remote", "spool") for text in (self._given(BY_FLAG[flag]) or ("", []))[1]]
        known = {option.variable for option in OPTIONS} | mentioned_variables(urls) | self.config.variables
        return unknown_variables(self._environ, known)

    def _read_config(self) -> ConfigFile:
        """As `_access`."""
        given = self._given(CONFIG)
        if given is None:
            return ConfigFile()
        source, (name,) = given
        try:
            found = read_config(name, OPTIONS, self._environ)
        except BadConfig as problem:
            raise usage.UsageError(str(problem)) from problem
        except OSError as error:
            raise usage.UsageError(f"{source} {name}: {error.strerror or error}") from error
        except ValueError as problem:
            raise usage.UsageError(f"{source} {name!r}: expected {problem}") from problem
        for each in found.warnings:
            self._log.warn("{problem}", problem=each)
        return found

    def _check_environment(self) -> None:
        """Raises UsageError for a variable that is misspelt: nobody would notice that it isn't heeded."""
        port = BY_FLAG["port"].variable
        if of_a_service(port, self._environ.get(port, "")):
            told = (
                "{port} is what Kubernetes sets for a Service of that name, and not heeded (enableServiceLinks: false)"
            )
            self._log.warn(told, port=port)
        for each in self.unknown_variables:
            if each.misspelt:
                raise usage.UsageError(str(each))
            self._log.warn("{variable}", variable=str(each))

    def settings(self) -> Settings:
        """The settings; RuntimeError before `parseOptions`."""
        if self._settings is None:
            raise RuntimeError("parseOptions was not called")
        return self._settings

    def _listen(self, found: dict[str, Any]) -> tuple[str, ...]:
        """As `_access`."""
        port, host, endpoints = found.pop("port"), found.pop("host"), found.pop("listen")
        certificate, key = found.pop("tls_cert"), found.pop("tls_key")
        if key is not None and certificate is None:
            raise usage.UsageError("--tls-key needs --tls-cert")
        if endpoints and self._given(BY_FLAG["port"]) is None:
            if host is not None:
                raise usage.UsageError(
                    "--host is for --port: give --port too, or name the address in --listen tcp:PORT:interface=ADDRESS"
                )
            if certificate is not None:
                raise usage.UsageError("--tls-cert is for --port: with --listen alone, name the files in an ssl:...")
            return tuple(endpoints)
        interface = "" if host is None else f":interface={quoteStringArgument(host)}"
        if certificate is None:
            return (f"tcp{'6' if host and ':' in host else ''}:{port}{interface}", *endpoints)
        files = (quoteStringArgument(str(path)) for path in (key or certificate, certificate))
        return ("ssl:{}:privateKey={}:certKey={}{}".format(port, *files, interface), *endpoints)

    def _admin_listen(self, endpoints: tuple[str, ...], upload_dir: Path, catalog: str | None) -> tuple[str, ...]:
        if catalog is not None:  # the socket is in the run directory, which isn't made yet
            return tuple(SOCKET if each == "socket" else private_socket(each) for each in endpoints)
        try:
            return tuple(admin_endpoint(upload_dir) if each == "socket" else private_socket(each) for each in endpoints)
        except ValueError as problem:
            if self._given(BY_FLAG["admin-listen"]) is not None:
                raise usage.UsageError(f"{problem}: give another with --admin-listen, or none") from problem
            self._log.warn("operators find no socket, as {problem}: give another with --admin-listen", problem=problem)
            return ()

    @staticmethod
    def _access(found: dict[str, Any]) -> AccessSettings:
        """Takes what only access goes by out of ``found``."""
        try:
            access = access_settings(found)
        except AccessProblem as problem:
            raise usage.UsageError(str(problem)) from problem
        for option in ACCESS:
            if not option.flag.startswith("tls-"):
                del found[option.flag.replace("-", "_")]
        return access

    @staticmethod
    def _placing(found: dict[str, Any]) -> PlaceSettings:
        """As `_access`."""
        try:
            return place_settings(found, found["upload_dir"])
        except ValueError as problem:
            raise usage.UsageError(str(problem)) from problem

    @staticmethod
    def _hooks(found: dict[str, Any]) -> HookSettings:
        """As `_access`."""
        try:
            hooks = hook_settings(found)
        except ValueError as problem:
            raise usage.UsageError(str(problem)) from problem
        for option in HOOKS:
            del found[option.flag.replace("-", "_")]
        return hooks

    @staticmethod
    def _draft(found: dict[str, Any]) -> bool:
        """Whether the draft is spoken. Raises `usage.UsageError` for limits that no request can keep."""
        least, most = found["min_append_size"], found["max_append_size"]
        if least is not None and most is not None and least > most:
            raise usage.UsageError(
                "--min-append-size is more than --max-append-size, so no request could be both:"
                " lower the first or raise the second"
            )
        return not found.pop("disable_draft")

    def _disabled_extensions(self, found: dict[str, Any]) -> tuple[str, ...]:
        """As `_access`. Clients must know when uploads expire, so without the extension none does."""
        disabled: tuple[str, ...] = found.pop("disable_extension")
        if "expiration" in disabled:
            if self._given(BY_FLAG["expire-after"]) and found["expire_after"] is not None:
                raise usage.UsageError(
                    "--disable-extension expiration and --expire-after contradict each other: clients have to be told"
                )
            found["expire_after"] = None
        elif found["expire_after"] is None:
            return (*disabled, "expiration")
        return disabled

    @staticmethod
    def _cors(found: dict[str, Any]) -> CrossOrigin:
        """As `_access`."""
        try:
            cors = cross_origin_rules(found)
        except ValueError as problem:
            raise usage.UsageError(str(problem)) from problem
        for flag in [flag for flag in found if flag.startswith("cors_")]:
            del found[flag]
        return cors

    def _spool(self, url: str | None) -> RemoteSpec | None:
        """As `_remote`."""
        if url is None:
            return None
        try:
            return urls.parse_spool(url, environ=self._environ)
        except BadRemote as problem:
            source = (self._given(BY_FLAG["spool"]) or ("",))[0]
            raise usage.UsageError(source + str(problem).removeprefix("spool")) from problem

    def _check_spool(self, settings: Settings) -> None:
        """Raises UsageError for options that contradict `--spool`, or need it."""
        spool = settings.spool
        if spool is None:
            if self._given(BY_FLAG["scratch-size"]) is not None:
                raise usage.UsageError("--scratch-size needs --spool: an upload directory has no scratch")
            return
        if settings.catalog is None:
            raise usage.UsageError("--spool needs --catalog postgresql://...: with SQLite, uploads are in --upload-dir")
        if self._given(BY_FLAG["upload-dir"]) is not None:
            raise usage.UsageError("--upload-dir and --spool contradict each other: with --spool there is no directory")
        for option in PLACING:
            if self._given(option) is not None:
                raise usage.UsageError(f"--{option.flag} and --spool contradict each other: the object is the file")
        if settings.local != "keep":
            raise usage.UsageError(
                f"--local {settings.local} and --spool contradict each other: the spool's object is the upload's file"
            )
        if settings.max_lag is not None:
            raise usage.UsageError(
                "--max-lag and --spool contradict each other: remotes get nothing of an upload before all of it is"
                " there; use --max-lag-age"
            )
        for each in settings.remotes:
            if _place(each) == _place(spool):
                raise usage.UsageError(
                    f"--remote {each.name} is the --spool: uploads are there anyway; leave it out, or give it another"
                    " prefix"
                )
            if _bucket(each) == _bucket(spool) and each.template.reaches(spool.prefix, OWN):
                raise usage.UsageError(
                    f"--remote {each.name} has keys among those of the --spool {spool.name}: leave it out, or begin its"
                    " keys with another directory"
                )

    def _remotes(self, texts: Sequence[str], overwrite: str, spool: RemoteSpec | None) -> tuple[RemoteSpec, ...]:
        given = self._given(BY_FLAG["remote"])
        specs = [self._remote(given[0] if given else "", text, overwrite) for text in texts]
        bucket = self._environ.get("AWS_S3_BUCKET", "").strip()
        named = [*specs, *([] if spool is None else [spool])]
        if bucket and not any(spec.scheme == "s3" and spec.bucket == bucket for spec in named):
            specs.append(self._remote("AWS_S3_BUCKET", f"s3://{quote(bucket)}", overwrite))
        try:
            urls.check_names(specs)
        except BadRemote as problem:
            raise usage.UsageError(str(problem)) from problem
        return tuple(specs)

    def _remote(self, source: str, url: str, overwrite: str) -> RemoteSpec:
        """The remote of that URL. Raises UsageError, which never repeats the URL: it may hold a password."""
        try:
            return urls.parse(url, overwrite=overwrite, environ=self._environ)
        except BadRemote as problem:
            raise usage.UsageError(f"{source}: {problem}") from problem

    def given(self, option: Option) -> tuple[str, list[str]] | None:
        """Where the option was set (``--flag``, its variable, or a key of the file), and to which texts; None when it
        has its default. They may be secrets."""
        return self._given(option)

    def _given(self, option: Option) -> tuple[str, list[str]] | None:
        """Where the option was set, and to which texts; None when it was not."""
        flag = f"--{option.flag}"
        if option.is_switch:
            if self[option.flag]:
                return flag, ["yes"]
        elif option.separator:
            if option.flag in self._repeated:
                texts = self._repeated[option.flag]
                return flag, split(texts, ",") if option.separator == "," else texts
        elif self[option.flag] is not None:
            return flag, [self[option.flag]]
        text = self._environ.get(option.variable, "").strip()
        if not text or of_a_service(option.variable, text):
            return self.config.given(option)
        return option.variable, split([text], option.separator) if option.separator else [text]

    def _value(self, option: Option) -> Any:
        given = self._given(option)
        if given is None:
            source, texts = "default", [option.default]
            if option.separator:
                texts = split(texts, option.separator)
            if option.is_switch:
                return False
            if not option.default and not option.separator:
                return None
        else:
            source, texts = given
        try:
            return option.parse(texts if option.separator else texts[0])
        except ValueError as problem:
            text = masked(",".join(texts))
            shown = repr(text if len(text) <= 100 else text[:100] + "...")
            if option.secret or "@" in text or option.flag in self.config.hidden:
                shown = "(not repeated here)"
            raise usage.UsageError(f"{source} {shown}: expected {problem}") from problem


def _collector(flag: str) -> Callable[[Options, str], None]:
    return lambda options, value: options.repeat(flag, value)


for _option in OPTIONS:
    if _option.separator:  # usage.Options calls a method of that name for each time the flag is given
        setattr(Options, f"opt_{_option.flag.replace('-', '_')}", _collector(_option.flag))


def has_page(settings: Settings) -> bool:
    """Whether browsers find a page for uploads."""
    return settings.page == "on" or (settings.page == "auto" and only_loopback(settings.listen))


def check_together(settings: Settings) -> None:
    """Raises UsageError for options that contradict each other."""
    if settings.workers != 1 and settings.catalog is None:
        raise usage.UsageError(
            "--workers needs --catalog postgresql://...: with SQLite, one process takes all requests"
        )
    if settings.run_dir is not None and settings.catalog is None:
        raise usage.UsageError(
            "--run-dir needs --catalog postgresql://...: with SQLite, the admin socket is in --upload-dir"
        )
    is_waited_for = any(spec.required for spec in settings.remotes)
    if settings.ack == "remote" and not is_waited_for:
        raise usage.UsageError("--ack remote needs a --remote that is required: there is none to wait for")
    if settings.local != "keep" and not is_waited_for:
        raise usage.UsageError(f"--local {settings.local} needs a --remote that is required: uploads would be lost")
    if settings.local != "keep" and settings.placing.template is not None:
        raise usage.UsageError(f"--local {settings.local} and --place contradict each other: what is placed stays")
    if settings.tls_client_ca and not any(each.startswith(("ssl:", "haproxy:ssl:")) for each in settings.listen):
        raise usage.UsageError("--tls-client-ca needs --tls-cert or --listen ssl:...: there is no TLS without")
    if settings.admin_on_public and (settings.base_path + "/").startswith("/admin/"):
        raise usage.UsageError("--admin-on-public needs another --base-path: under /admin/ is the admin API")
    if settings.retry_delay > settings.retry_delay_max:
        raise usage.UsageError("--retry-delay is longer than --retry-delay-max")


def _place(spec: RemoteSpec) -> tuple[str | None, ...]:
    """Where its objects are."""
    return *_bucket(spec), spec.prefix


def _bucket(spec: RemoteSpec) -> tuple[str | None, ...]:
    return spec.scheme, spec.bucket, spec.options.get("endpoint"), spec.options.get("account")


def split(texts: list[str], separator: str) -> list[str]:
    """The parts of all the texts that are not empty, trimmed."""
    parts = (part.strip() for text in texts for part in text.split(None if separator == " " else separator))
    return [part for part in parts if part]
