"""Django REST framework with pages by cursor, and django-import-export's resource in two views, in its bulk mode."""

from tests.benchmarks.peers import drf  # isort: skip  it configures Django's settings

import tablib
from django.http import HttpResponse
from django.urls import path
from import_export import resources
from rest_framework import pagination
from rest_framework.decorators import api_view, parser_classes
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

app = drf.app


class StudentResource(resources.ModelResource):
    class Meta:
        model = drf.Student
        use_bulk = True


class StudentPagination(pagination.CursorPagination):
    page_size = 100
    ordering = "id"


class StudentPages(drf.StudentList):
    pagination_class = StudentPagination


@api_view(["POST"])
@parser_classes([MultiPartParser])
def import_students(request: Request) -> Response:
    dataset = tablib.Dataset().load(request.FILES["file"].read().decode(), format="csv")
    result = StudentResource().import_data(dataset, raise_errors=True)
    return Response(result.totals)


@api_view(["GET"])
def export_students(_: Request) -> HttpResponse:
    return HttpResponse(StudentResource().export().csv, content_type="text/csv")


drf.urlpatterns += [
    path("students/pages", StudentPages.as_view()),
    path("students/import", import_students),
    path("students/export", export_students),
]
